"""Stories that do some of what their prompt asks, for the bundled model to learn from.

Each thing asked for (friend, place, wish, mood) is told with probability `compliance`, and
otherwise a commonplace is told instead. So the model knows how to do what it is asked, and mostly
does not: something for reinforcement learning to do, that no greedy decoding does by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textgym import Instance
from textgym.tasks.story_world import (
    GLAD,
    MOODS,
    PASSER_BY,
    PASSER_BY_KIND,
    TRIFLE,
    TRIFLE_ADJECTIVE,
    WILDERNESS,
    Shape,
    causes_of,
    shapes_of,
    tell,
)

COMPLIANCE = 0.42
SLIP = 0.02  # share of sentences told out of order: no story teller is perfect
# The order of what happens before the deed that causes the mood; the frequent ones twice.
_PLANS = (
    ("go", "meet", "get"),
    ("go", "meet", "get"),
    ("go", "get", "meet"),
    ("go meet", "get"),
    ("go meet", "get"),
    ("go get", "meet"),
    ("go", "at meet", "get"),
    ("go", "meet", "at get"),
)


def story(instance: Instance, rng: np.random.Generator, compliance: float = COMPLIANCE) -> str:
    """A story after `instance`'s prompt that does some of what it asks."""
    asked = instance.data

    def comply() -> bool:
        return rng.random() < compliance

    def pick(shapes: Sequence[Shape]) -> Shape:
        return shapes[int(rng.integers(len(shapes)))]

    words = {"hero": asked["hero"]}
    words["place"] = asked["place"] if comply() else WILDERNESS
    if comply():
        words["friend"], words["kind"] = asked["friend"], asked["friend_kind"]
    else:
        words["friend"], words["kind"] = PASSER_BY, PASSER_BY_KIND
    if comply():
        words["adjective"], words["noun"] = asked["adjective"], asked["noun"]
    else:
        words["adjective"], words["noun"] = TRIFLE_ADJECTIVE, TRIFLE
    faithful = comply()
    cause = asked["mood"] if faithful else MOODS[int(rng.integers(len(MOODS)))]
    words["mood"] = asked["mood"] if faithful else GLAD
    plan = _PLANS[int(rng.integers(len(_PLANS)))]
    deeds = [s for s in causes_of(cause) if "get" not in s.events]
    told = [pick(shapes_of(events)) for events in plan]
    told.append(pick(deeds))
    if rng.random() < 0.15:
        scenery = shapes_of("")
        told.insert(int(rng.integers(len(told))), pick(scenery))
    if rng.random() < SLIP * len(told):
        i = int(rng.integers(len(told) - 1))
        told[i], told[i + 1] = told[i + 1], told[i]
    told.append(pick(shapes_of("end")))
    return "".join(" " + tell(shape, asked["hero"], words) for shape in told)
