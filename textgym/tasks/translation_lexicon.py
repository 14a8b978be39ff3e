"""The words of `TranslationTask`, English and German: one translation each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

Gender = Literal["m", "f", "n"]


@dataclass(frozen=True)
class Noun:
    """A noun; `tags` say what kind of thing it is. A name has no plural."""

    english: str
    english_plural: str
    german: str
    german_plural: str
    gender: Gender
    level: int
    tags: frozenset[str]


@dataclass(frozen=True)
class Verb:
    """A verb; `frame` says what it takes: none, acc, dat, give (both) or that (a clause)."""

    english: str
    english_past: str
    prefix: str  # the separable one, or none
    german: str  # the infinitive, and the plural, without the prefix
    german_singular: str
    participle: str  # without the prefix
    auxiliary: Literal["haben", "sein"]
    frame: Literal["none", "acc", "dat", "give", "that"]
    level: int
    adverbials: str  # of t(ime) and p(lace), those that go with it
    subject: frozenset[str]  # the tags of which a noun in its place has one
    object: frozenset[str]


_NOUNS = """
man        men         Mann     Männer      m 1 being person
woman      women       Frau     Frauen      f 1 being person
child      children    Kind     Kinder      n 1 being person
girl       girls       Mädchen  Mädchen     n 1 being person
mother     mothers     Mutter   Mütter      f 1 being person
father     fathers     Vater    Väter       m 1 being person
king       kings       König    Könige      m 1 being person
queen      queens      Königin  Königinnen  f 1 being person
brother    brothers    Bruder   Brüder      m 2 being person
sister     sisters     Schwester Schwestern f 2 being person
uncle      uncles      Onkel    Onkel       m 2 being person
aunt       aunts       Tante    Tanten      f 2 being person
son        sons        Sohn     Söhne       m 2 being person
daughter   daughters   Tochter  Töchter     f 2 being person
dog        dogs        Hund     Hunde       m 1 being animal
cat        cats        Katze    Katzen      f 1 being animal
horse      horses      Pferd    Pferde      n 1 being animal
bird       birds       Vogel    Vögel       m 1 being animal
cow        cows        Kuh      Kühe        f 2 being animal
mouse      mice        Maus     Mäuse       f 2 being animal
pig        pigs        Schwein  Schweine    n 2 being animal
house      houses      Haus     Häuser      n 1 thing goods built tidy
book       books       Buch     Bücher      n 1 thing goods small text
car        cars        Auto     Autos       n 1 thing goods machine
ball       balls       Ball     Bälle       m 1 thing goods small
apple      apples      Apfel    Äpfel       m 1 thing goods small food
egg        eggs        Ei       Eier        n 1 thing goods small food
cake       cakes       Kuchen   Kuchen      m 1 thing goods small food
hat        hats        Hut      Hüte        m 1 thing goods small
lamp       lamps       Lampe    Lampen      f 1 thing goods small device
table      tables      Tisch    Tische      m 1 thing goods built
chair      chairs      Stuhl    Stühle      m 1 thing goods built
flower     flowers     Blume    Blumen      f 1 thing goods small
picture    pictures    Bild     Bilder      n 1 thing goods
bed        beds        Bett     Betten      n 2 thing goods built
boat       boats       Boot     Boote       n 2 thing goods built machine
bicycle    bicycles    Fahrrad  Fahrräder   n 2 thing goods machine
bag        bags        Tasche   Taschen     f 2 thing goods small openable
key        keys        Schlüssel Schlüssel  m 2 thing goods small
coat       coats       Mantel   Mäntel      m 2 thing goods washable
dress      dresses     Kleid    Kleider     n 2 thing goods washable
shirt      shirts      Hemd     Hemden      n 2 thing goods washable
radio      radios      Radio    Radios      n 2 thing goods device
computer   computers   Computer Computer    m 2 thing goods device
soup       soups       Suppe    Suppen      f 2 thing goods food
letter     letters     Brief    Briefe      m 2 thing small openable text
newspaper  newspapers  Zeitung  Zeitungen   f 2 thing goods small
door       doors       Tür      Türen       f 2 thing openable built
window     windows     Fenster  Fenster     n 2 thing openable built
kitchen    kitchens    Küche    Küchen      f 2 thing tidy
room       rooms       Zimmer   Zimmer      n 2 thing tidy
"""

# A past that is spelled like the base form ("read", "put") would leave the tense open: none here.
_VERBS = """
see         saw          -      sehen     sieht     gesehen    haben acc  1 tp being  being|thing
buy         bought       -      kaufen    kauft     gekauft    haben acc  1 tp person goods
sell        sold         -      verkaufen verkauft  verkauft   haben acc  1 tp person goods
love        loved        -      lieben    liebt     geliebt    haben acc  1 -  being  being|thing
find        found        -      finden    findet    gefunden   haben acc  1 tp being  being|thing
need        needed       -      brauchen  braucht   gebraucht  haben acc  1 t  person goods
bring       brought      -      bringen   bringt    gebracht   haben acc  1 t  person small
take        took         -      nehmen    nimmt     genommen   haben acc  1 t  person small
wash        washed       -      waschen   wäscht    gewaschen  haben acc  1 tp person being|washable
hear        heard        -      hören     hört      gehört     haben acc  1 tp being  being
eat         ate          -      essen     isst      gegessen   haben acc  1 tp person food
ask         asked        -      fragen    fragt     gefragt    haben acc  1 tp person person
visit       visited      -      besuchen  besucht   besucht    haben acc  1 tp person person
kiss        kissed       -      küssen    küsst     geküsst    haben acc  1 tp person being
draw        drew         -      zeichnen  zeichnet  gezeichnet haben acc  1 tp person being|thing
like        liked        -      mögen     mag       gemocht    haben acc  1 -  person being|thing
know        knew         -      kennen    kennt     gekannt    haben acc  1 -  person person
watch       watched      -      beobachten beobachtet beobachtet haben acc 1 tp being being
sleep       slept        -      schlafen  schläft   geschlafen haben none 2 tp being  -
sing        sang         -      singen    singt     gesungen   haben none 2 tp person -
dance       danced       -      tanzen    tanzt     getanzt    haben none 2 tp person -
play        played       -      spielen   spielt    gespielt   haben none 2 tp being  -
work        worked       -      arbeiten  arbeitet  gearbeitet haben none 2 tp person -
laugh       laughed      -      lachen    lacht     gelacht    haben none 2 tp person -
look_for    looked_for   -      suchen    sucht     gesucht    haben acc  2 tp being  being|thing
hold        held         -      halten    hält      gehalten   haben acc  1 tp person small
carry       carried      -      tragen    trägt     getragen   haben acc  2 t  person device|food
build       built        -      bauen     baut      gebaut     haben acc  2 tp person built
lose        lost         -      verlieren verliert  verloren   haben acc  1 tp person small
write       wrote        -      schreiben schreibt  geschrieben haben acc 2 tp person text
repair      repaired     -      reparieren repariert repariert haben acc  2 tp person machine
cry         cried        -      weinen    weint     geweint    haben none 2 tp person -
wait        waited       -      warten    wartet    gewartet   haben none 2 tp person -
call        called       an     rufen     ruft      gerufen    haben acc  2 tp person person
invite      invited      ein    laden     lädt      geladen    haben acc  2 t  person person
pick_up     picked_up    ab     holen     holt      geholt     haben acc  2 t  person person
bring_along brought_along mit   bringen   bringt    gebracht   haben acc  2 t  person small
open        opened       auf    machen    macht     gemacht    haben acc  2 t  person openable
close       closed       zu     machen    macht     gemacht    haben acc  2 t  person openable
turn_on     turned_on    an     machen    macht     gemacht    haben acc  2 t  person device
turn_off    turned_off   aus    machen    macht     gemacht    haben acc  2 t  person device
tidy_up     tidied_up    auf    räumen    räumt     geräumt    haben acc  2 t  person tidy
get_up      got_up       auf    stehen    steht     gestanden  sein  none 2 t  person -
arrive      arrived      an     kommen    kommt     gekommen   sein  none 2 t  person -
come_back   came_back    zurück kommen    kommt     gekommen   sein  none 2 t  being  -
fall_asleep fell_asleep  ein    schlafen  schläft   geschlafen sein  none 2 tp being  -
help        helped       -      helfen    hilft     geholfen   haben dat  2 tp person being
thank       thanked      -      danken    dankt     gedankt    haben dat  2 t  person person
answer      answered     -      antworten antwortet geantwortet haben dat 2 t  person person
follow      followed     -      folgen    folgt     gefolgt    sein  dat  2 tp being  being
trust       trusted      -      vertrauen vertraut  vertraut   haben dat  2 -  person person
give        gave         -      geben     gibt      gegeben    haben give 2 t  person small
show        showed       -      zeigen    zeigt     gezeigt    haben give 2 t  person thing
send        sent         -      schicken  schickt   geschickt  haben give 2 t  person small
lend        lent         -      leihen    leiht     geliehen   haben give 2 t  person machine|small
say         said         -      sagen     sagt      gesagt     haben that 3 -  person -
hope        hoped        -      hoffen    hofft     gehofft    haben that 3 -  person -
believe     believed     -      glauben   glaubt    geglaubt   haben that 3 -  person -
"""

# English: German stem, the tag a noun must have ("" for any), level.
ADJECTIVES: dict[str, tuple[str, str, int]] = {
    "old": ("alt", "", 1),
    "small": ("klein", "", 1),
    "big": ("groß", "", 1),
    "beautiful": ("schön", "", 1),
    "young": ("jung", "being", 1),
    "tired": ("müd", "being", 1),
    "happy": ("glücklich", "person", 1),
    "new": ("neu", "thing", 1),
    "red": ("rot", "thing", 1),
    "blue": ("blau", "thing", 1),
    "white": ("weiß", "thing", 1),
    "green": ("grün", "thing", 2),
    "cheap": ("billig", "goods", 2),
    "black": ("schwarz", "animal", 2),
    "brown": ("braun", "animal", 2),
    "hungry": ("hungrig", "being", 2),
    "sick": ("krank", "being", 2),
    "friendly": ("freundlich", "person", 2),
    "poor": ("arm", "person", 2),
    "rich": ("reich", "person", 2),
}
NAMES = ("Anna", "Tom", "Mia", "Paul")
PLACES: dict[str, str] = {
    "in the garden": "im Garten",
    "in the park": "im Park",
    "in the kitchen": "in der Küche",
    "in the city": "in der Stadt",
    "in the house": "im Haus",
    "in the forest": "im Wald",
    "at home": "zu Hause",
    "at the station": "am Bahnhof",
    "at the lake": "am See",
    "on the beach": "am Strand",
    "in the village": "im Dorf",
}
# English: German, and whether it goes with the present, with a modal in the present, with the past.
TIMES: dict[str, tuple[str, bool, bool, bool]] = {
    "today": ("heute", True, True, False),
    "now": ("jetzt", True, True, False),
    "every day": ("jeden Tag", True, True, False),
    "on Sunday": ("am Sonntag", True, True, True),
    "in the evening": ("am Abend", True, True, True),
    "tomorrow": ("morgen", False, True, False),
    "yesterday": ("gestern", False, False, True),
    "last week": ("letzte Woche", False, False, True),
}
# English present (singular, plural), past, negated base; German singular, plural, past of both.
MODALS: dict[str, tuple[str, ...]] = {
    "want": ("wants to", "want to", "wanted to", "will", "wollen", "wollte", "wollten"),
    "have": ("has to", "have to", "had to", "muss", "müssen", "musste", "mussten"),
    "can": ("can", "can", "", "kann", "können", "", ""),
}
LINKS = {"because": "weil", "although": "obwohl", "that": "dass"}
DETERMINERS = ("the", "a", "my", "this", "")


def _noun(row: list[str]) -> Noun:
    gender: Any = row[4]
    return Noun(row[0], row[1], row[2], row[3], gender, int(row[5]), frozenset(row[6:]))


def _verb(row: list[str]) -> Verb:
    english, past = (words.replace("_", " ") for words in row[:2])
    prefix = "" if row[2] == "-" else row[2]
    auxiliary: Any = row[6]
    frame: Any = row[7]
    who, what = frozenset([row[10]]), frozenset(row[11].split("|"))
    forms = english, past, prefix, row[3], row[4], row[5]
    return Verb(*forms, auxiliary, frame, int(row[8]), row[9], who, what)


NOUNS = tuple(_noun(line.split()) for line in _NOUNS.strip().splitlines())
VERBS = tuple(_verb(line.split()) for line in _VERBS.strip().splitlines())


@lru_cache
def nouns_of(level: int, tags: frozenset[str]) -> tuple[Noun, ...]:
    """The nouns up to `level` that have one of `tags`."""
    return tuple(noun for noun in NOUNS if noun.level <= level and noun.tags & tags)


@lru_cache
def adjectives_of(level: int, noun: Noun) -> tuple[str, ...]:
    """The adjectives up to `level` that go with `noun`."""
    return tuple(
        english
        for english, (_, tag, least) in ADJECTIVES.items()
        if least <= level and (not tag or tag in noun.tags)
    )


@lru_cache
def times_of(past: bool, modal: bool) -> tuple[str, ...]:
    """The times that go with a tense, in English."""
    column = 3 if past else 2 if modal else 1
    return tuple(english for english, row in TIMES.items() if row[column])


@lru_cache
def verbs_of(level: int, group: str = "") -> tuple[Verb, ...]:
    """The verbs up to `level`: all but those of saying, or those of one group.

    Args:
        level: of difficulty.
        group: "separable", "dative" (giving included), "that", or "" for none of these.
    """

    def group_of(verb: Verb) -> str:
        if verb.frame in ("dat", "give"):
            return "dative"
        return "that" if verb.frame == "that" else "separable" if verb.prefix else ""

    return tuple(verb for verb in VERBS if verb.level <= level and group_of(verb) == group)
