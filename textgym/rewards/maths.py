"""`Maths`: is the final answer of a completion mathematically the right one?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.answer import How, extract_answer, same_answer
from textgym.rewards.formula import MOST_CHARACTERS, Formulas, read_formulas, same
from textgym.rewards.sandbox import Sandbox, SandboxReward
from textgym.rewards.sandbox_handle import Failed


class Maths(SandboxReward):
    """1 where the final answer equals that of the target mathematically, else 0.

    Numbers are compared exactly (``0.5``, ``1/2``, ``50%``, ``\\frac{1}{2}``, ``1,000``; 0.333 is
    not 1/3); expressions are equal if sympy simplifies their difference to 0. They may be written
    as on a calculator or in simple LaTeX (fractions, roots, powers, common functions); of ``x = 3``
    the right side counts. Lists are compared item by item: in round or square brackets in this
    order (points, intervals), otherwise in any. A target that is none of this must be given word
    by word (see `same_answer`), and such an answer is otherwise wrong. Only the answer is judged,
    not the way to it; nothing but the right answer is paid.

    **A question's own formula is equal to its answer**: ``17*23`` is paid where the target is
    ``391``, and a policy will find that out. Set `plain` if the prompts state what is to be
    computed.

    sympy works in other processes, under limits, see `Sandbox`: an answer such as ``9**9**9**9``
    costs one episode its reward, with a `RewardWarning`. Answers are read up to 1000 characters;
    longer ones are wrong.

    Args:
        how: how the answer is marked, see `extract_answer`.
        tag: the name of the tag, where `how` is ``"tag"``.
        plain: where the target is a number, the answer must be one, too, not a formula for it.
        timeout: seconds that a comparison may take.
        memory_mb: MiB that a comparison may take.
        processes: how many answers are compared at the same time.
        fallback: what an episode is paid whose answer could not be compared; in [0, 1].
        name: its name in `info["rewards"]`.

    Raises:
        ValueError: an argument out of bounds, or sympy is not installed; later, an episode without
            a target.

    Example:
        >>> maths = Maths("boxed")
        >>> maths.value(r"Hence \\boxed{\\frac{1}{2}}.", "0.5")
        1.0
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        how: How = "tag",
        *,
        tag: str = "answer",
        plain: bool = False,
        timeout: float = 5.0,
        memory_mb: int = 512,
        processes: int = 4,
        fallback: float = 0.0,
        name: str = "maths",
    ) -> None:
        extract_answer("", how, tag=tag)  # raises for an unknown one
        if not 0.0 <= fallback <= 1.0:
            raise ValueError(f"`fallback` must be a number from 0 to 1, got {fallback!r}.")
        try:
            import sympy  # noqa: F401
        except ImportError as error:
            raise ValueError('it needs sympy: `pip install "textgym[rewards]"`.') from error
        self.how: How = how
        self.tag = tag
        self.plain = plain
        self.fallback = float(fallback)
        self.name = name
        self.sandbox = Sandbox(
            "textgym.rewards.formula:equal",
            timeout=timeout,
            memory_mb=memory_mb,
            processes=processes,
            set_up="textgym.rewards.formula:set_up",
        )

    def value(self, text: str, target: str) -> float:
        """The reward of the completion `text` where `target` is right.

        Raises:
            RuntimeError: where the answer could not be compared (an episode is then paid the
                fallback).
        """
        pair = self._pair(text, target)
        if isinstance(pair, float):
            return pair
        (outcome,) = self.sandbox.map([pair])
        if isinstance(outcome, Failed):
            raise RuntimeError(f"the answer could not be compared: {outcome.reason}.")
        return outcome

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, each 0 or 1 (or the fallback)."""
        values = np.zeros(len(episodes), np.float32)
        rows: list[int] = []
        pairs: list[tuple[Formulas, Formulas]] = []
        for row, episode in enumerate(episodes):
            target = episode.instance.target
            if target is None:
                raise ValueError(
                    f"reward `{self.name}` compares with the target, and the instance of the "
                    f"prompt {episode.prompt[:80]!r} has none. Use a task that gives targets."
                )
            pair = self._pair(episode.completion_text, target)
            if isinstance(pair, float):
                values[row] = pair
            else:
                rows.append(row)
                pairs.append(pair)
        values[rows] = self.judged([episodes[row] for row in rows], pairs)
        return values

    def _pair(self, text: str, target: str) -> float | tuple[Formulas, Formulas]:
        """The reward, where it can be told without sympy, else what is to be compared."""
        answer = extract_answer(text, self.how, tag=self.tag)
        wanted = extract_answer(target, self.how, tag=self.tag) or target
        if answer is None or len(answer) > MOST_CHARACTERS:
            return 0.0
        if same_answer(answer, wanted):
            return 1.0
        one, other = read_formulas(answer), read_formulas(wanted)
        if one is None or other is None:
            return 0.0
        if len(one.parts) != len(other.parts) or one.brackets != other.brackets:
            return 0.0
        if one.plain and other.plain:
            return float(same(one, other, lambda i, j: one.numbers[i] == other.numbers[j]))
        if self.plain and other.plain:
            return 0.0
        return one, other
