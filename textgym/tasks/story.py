"""`StoryTask`: continue a little story so that it contains and ends as its prompt asks."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from textgym.episode import Instance
from textgym.tasks.base import TextTask, TokenCounter
from textgym.tasks.story_world import (
    ADJECTIVES,
    FEELINGS,
    KINDS,
    MOODS,
    NAMES,
    NOUNS,
    PLACES,
    Shape,
    World,
    causes_of,
    shapes_of,
    tell,
)

ASK = "Meet {friend} the {friend_kind}, visit the {place}, grant the wish, end {mood}.\n"
OPENINGS = (
    *(
        when
        + " {hero} the {kind} was {feeling} near the {start} and wished for a {adjective} {noun}."
        for when in ("Once upon a time", "One morning", "One day", "Long ago", "Last spring")
    ),
    "Near the {start} lived {hero} the {kind}, {feeling} and wishing for a {adjective} {noun}.",
    "There was a {feeling} {kind} called {hero} near the {start}, who wanted a {adjective} {noun}.",
)
# The words that each slot of a prompt is drawn from.
SLOTS: dict[str, Sequence[str]] = {
    "hero": NAMES,
    "kind": KINDS,
    "friend": NAMES,
    "friend_kind": KINDS,
    "start": PLACES,
    "place": PLACES,
    "adjective": ADJECTIVES,
    "noun": NOUNS,
    "feeling": FEELINGS,
    "mood": MOODS,
}
MIN_SENTENCES, MAX_SENTENCES = 4, 10

_PROMPTS = tuple(ASK + opening for opening in OPENINGS)
_SIZES = (len(_PROMPTS), *map(len, SLOTS.values()))
_PATTERNS = tuple(
    re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[A-Za-z]+)", re.escape(prompt)))
    for prompt in _PROMPTS
)
# No story of `MAX_SENTENCES` is longer; what is need not be read.
_MAX_CHARACTERS = 1200


class StoryTask(TextTask):
    """Continue a little story so that it contains what the prompt asks for and ends as it says.

    ## Description
    A prompt names a friend to meet, a place to visit, a wish to grant (getting the thing that the
    hero wishes for) and the mood to end in, and then opens the story:

    > Meet Tom the owl, visit the mill, grant the wish, end proud.
    > One morning Mia the fox was lonely near the garden and wished for a red kite.

    The agent writes the rest: four to ten sentences of the story grammar (`story_world`), closed
    by an ending. There are more than 10^11 prompts.

    ## Rewards
    On the last step, `soundness * content`, both in [0, 1]:

    - soundness is the fraction of the sentences that are *sound*, where a story of fewer than four
      sentences counts as four. A sentence is sound if the grammar has it, it has not been told
      before, and it follows: pronouns agree with the hero; characters act only once met and only
      where they are; one goes to another place and is in the place that is told; things are had
      before they are played with or given, and are then gone; the mood of the ending has had its
      cause (being proud comes of giving, being wise of learning, ...); nothing follows the ending.
      Text after the last full stop, and every sentence from the eleventh on, is not sound.
    - content adds up, from sound sentences alone: 0.2 for meeting the friend, 0.2 for visiting the
      place, 0.2 for the wish, 0.1 for a cause of the mood; and, if the agent ended the text itself
      and the last sentence is an ending, 0.1, with 0.2 more if it is in the mood asked for.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    None.

    ## Version History
    - v0: first version.

    Example:
        >>> task = StoryTask()
        >>> instance = task.sample(np.random.default_rng(0))
        >>> task.from_prompt(instance.prompt) == instance
        True
        >>> task.score_text(instance, task.solve(instance))
        1.0
        >>> task.score_text(instance, "A friend came and all was well.")
        0.0
    """

    max_new_tokens = 64

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw an instance: every word independently, but for the friend being no namesake of
        the hero and the place to visit another than the story opens in."""
        draws = [int(u * n) for u, n in zip(rng.random(len(_SIZES)).tolist(), _SIZES, strict=True)]
        words = {slot: SLOTS[slot][i] for slot, i in zip(SLOTS, draws[1:], strict=True)}
        if words["friend"] == words["hero"]:
            words["friend"] = _another(NAMES, words["hero"], rng)
        if words["place"] == words["start"]:
            words["place"] = _another(PLACES, words["start"], rng)
        return Instance(_PROMPTS[draws[0]].format_map(words), data=words)

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for.

        Raises:
            ValueError: where `prompt` is not one of this task's.
        """
        for pattern in _PATTERNS:
            match = pattern.fullmatch(prompt)
            if match is None:
                continue
            words = match.groupdict()
            for slot, word in words.items():
                if word not in SLOTS[slot]:
                    raise ValueError(
                        f"story prompt: {word!r} is no {slot.replace('_', ' ')}. "
                        f"Known: {', '.join(SLOTS[slot])}."
                    )
            if words["hero"] == words["friend"] or words["start"] == words["place"]:
                raise ValueError(
                    "story prompt: the friend must have another name than the hero, and the "
                    f"place to visit be another than the first, got {prompt!r}."
                )
            return Instance(prompt, data=words)
        raise ValueError(
            f"not a story prompt: {prompt[:200]!r}. Expected one such as "
            f"{self.sample(np.random.default_rng(0)).prompt!r}"
        )

    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """The score of `completion` as it would be if the agent wrote it.

        Args:
            instance: what was asked for.
            completion: any text.
            ended: whether the agent ended the text itself.
        """
        if len(completion) > _MAX_CHARACTERS:
            return 0.0
        asked = instance.data or self.from_prompt(instance.prompt).data
        sentences = split_sentences(completion)
        world = World(asked["hero"], asked["start"])
        sound = [world.happen(sentence) for sentence in sentences[:MAX_SENTENCES]]
        if not any(sound):
            return 0.0
        friend = world.met.get(asked["friend"])
        closed = ended and sound[-1] and len(sound) == len(sentences) and world.ending is not None
        tenths = (
            2 * (friend is not None and friend.kind == asked["friend_kind"])
            + 2 * (asked["place"] in world.visited)
            + 2 * ((asked["adjective"], asked["noun"]) in world.had)
            + (asked["mood"] in world.caused)
            + closed
            + 2 * (closed and world.ending == asked["mood"])
        )
        return sum(sound) * tenths / (10 * max(len(sentences), MIN_SENTENCES))

    def solve(self, instance: Instance) -> str:
        """A story that scores 1.0: go, meet, get, a cause of the mood, the ending."""
        asked = instance.data or self.from_prompt(instance.prompt).data
        # Varied from prompt to prompt, the same for the same prompt.
        rng = np.random.default_rng(zlib.crc32(instance.prompt.encode()))
        words = {**asked, "kind": asked["friend_kind"]}

        def pick(shapes: Sequence[Shape]) -> str:
            return " " + tell(shapes[int(rng.integers(len(shapes)))], asked["hero"], words)

        plan = ("go", "meet", "get") if rng.random() < 0.7 else ("go meet", "get")
        deeds = [s for s in causes_of(asked["mood"]) if "get" not in s.events]
        story = [pick(shapes_of(events)) for events in plan]
        return "".join([*story, pick(deeds), pick(shapes_of("end"))])

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt.

        The longest prompt made of every slot's first word, and for each slot what its longest
        word adds to that; words meet at spaces, where tokenizers do not merge.
        """
        first = {slot: words[0] for slot, words in SLOTS.items()}
        bounds = []
        for prompt in _PROMPTS:
            base = count_tokens(prompt.format_map(first))
            added = [
                max(count_tokens(prompt.format_map({**first, slot: w})) for w in words) - base
                for slot, words in SLOTS.items()
            ]
            bounds.append(base + sum(added))
        return max(bounds) + 1  # slack for tokenizers that do merge over a space


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, each with its full stop; what follows the last one comes without.

    Every sentence stands after one space, but for the first, which may stand after none. What
    stands otherwise keeps its leading characters, and so is not grammatical.

    >>> split_sentences(" One. Two.  Three. Fo")
    ['One.', 'Two.', ' Three.', 'Fo']
    """
    pieces = text.split(".")
    sentences = [piece.removeprefix(" ") + "." for piece in pieces[:-1]]
    for i in range(1, len(sentences)):
        if not pieces[i].startswith(" "):
            sentences[i] = "?" + sentences[i]  # glued to the full stop before
    rest = pieces[-1].strip()
    return [*sentences, rest] if rest else sentences


def _another(words: Sequence[str], word: str, rng: np.random.Generator) -> str:
    """One of `words` that is not `word`."""
    return words[(words.index(word) + 1 + int(rng.integers(len(words) - 1))) % len(words)]
