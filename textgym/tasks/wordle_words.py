"""The words of `WordleTask`: everyday ones, of three, four and five letters."""

from __future__ import annotations

_THREE = """
    arm art bag bed bee big bow box boy bus can cap car cat cow cup day dog ear egg eye fan
    far fig fly fox fun gem hat hen hot ice ink jam jar key kit leg lid lip log low man map
    mat mix mud net new nut oak oil old owl pan pen pet pie pig pot red row run sad sea sky
    sun tea tie toe top toy van wet win zoo
"""

_FOUR = """
    baby ball band bank barn bath bean bear bell belt bird blue boat bone book boot bowl bush
    cake calm card cave city clay coat coin cold cook corn crab crow dark deer desk dish door
    drum duck dust east face farm fast fern fish flag foam foot fork frog game gate gift girl
    goat gold hair hand harp hill hive home honk horn iron jump king kite lake lamb lamp lawn
    leaf lime lion lock loud mask meat milk mill mint moon moss nail nest nose oven park path
    pear pine plum pond pool rain ring road rock roof room rope rose ruby sail salt sand seed
    shed ship shoe shop silk sing snow soap sock sofa soft song soup star stem swan tail tall
    tent tide tile tray tree tune vase vine walk wall warm wave west wind wing wolf wood wool
    yard
"""

_FIVE = """
    acorn actor adult agent alarm album alive amber angel angle ankle apple apron arrow award
    bacon badge baker basil beach beard berry birch black blade blame blank blaze blend block
    bloom board boast bonus boots brain brave bread brick bride brief bring broom brown brush
    bunch cabin cable camel candy canoe cargo carry catch cedar chain chair chalk charm chase
    cheek cheer chess chest child chill choir cider civil clean clear clerk climb clock cloth
    cloud clown coach coast coral couch count court cover crack craft crane crawl cream creek
    crisp cross crowd crown crumb curve daily dairy daisy dance depth diary diver dough draft
    dream dress drift drink drive eager eagle early earth elbow empty enjoy enter entry equal
    event extra fable faith fancy feast fence ferry fever fiber field flame flash fleet float
    flock flood floor flour flute focus forge frame fresh frost fruit funny giant glass globe
    glove grain grape grass green greet guard guess guest guide habit happy heart heavy hedge
    hello hobby honey horse hotel house human ideal image index ivory jelly jewel jolly judge
    juice knife knock label large laugh layer learn lemon level light linen local lucky lunch
    magic maple march marry match medal melon merry metal model money month mossy motor mount
    mouse mouth movie music nerve night noble noise north novel nurse ocean offer olive onion
    orbit order otter owner paint panel paper party pasta patch peach pearl phone photo piano
    pilot pitch pizza place plain plane plant plate plaza point porch pound power press price
    pride prize proud puppy queen quick quiet quilt radio ranch range raven reach ready reply
    rhyme ridge river roast robin rocky roses rough round route royal rural salad sauce scale
    scarf scene scent scout seven shade shape share sharp sheep sheet shelf shell shine shirt
    shore short sight silly skate skill sleep slice small smart smile smoke snack snail snowy
    solid south space spade spark spice spoon sport spray stage stair stamp stand steam steel
    stick stone store storm story stove straw sugar sunny sweet swing table taste teach thank
    thick thorn three tiger toast today tooth torch touch tower track trade trail train treat
    tribe truck trunk trust tulip uncle under unity valid value visit voice wagon waist watch
    water whale wheat wheel white world write young youth zebra
"""

THREE = tuple(_THREE.split())
FOUR = tuple(_FOUR.split())
FIVE = tuple(_FIVE.split())
