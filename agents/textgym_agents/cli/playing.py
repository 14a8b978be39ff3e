"""`textgym play`: a person in the agent's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from rich.console import Console
from rich.text import Text

from textgym_agents.cli.display import printable
from textgym_agents.cli.errors import CommandError

_NO_SPACE_BEFORE = " \t.,;:!?)'\"\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"


class Player:
    """Turns lines that a person types into tokens, and shows what comes of it.

    Args:
        env: a single-row textgym environment.
        console: where to write.
        read_line: returns a line without its newline, or raises `EOFError`.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], console: Console, read_line: Callable[[], str]
    ) -> None:
        self.env = env
        self.tokenizer: Any = env.get_wrapper_attr("tokenizer")
        self.console = console
        self.read_line = read_line
        self.at_end = False

    def say(self, text: str, style: str = "") -> None:
        """Print one paragraph."""
        self.console.print(Text(printable(text), style=style), soft_wrap=True)

    def episode(self, seed: int | None) -> bool:
        """Play one episode.

        Returns:
            False where the input had ended before anything was typed.
        """
        observation, info = self.env.reset(seed=seed)
        prompt = str(info["prompt"])
        self.say(f"\n{prompt}", style="bold")
        total, written = 0.0, 0
        while True:
            context = _context(observation)
            ids = self._turn(int(observation["remaining"][0]), prompt, written > 0)
            if ids is None:
                return False
            observation, reward, ended, info = self._step_all(ids)
            total += reward
            written += len(ids)
            reply = _context(observation)[len(context) + len(ids) :]
            if reply:
                self.say(self.tokenizer.decode(reply), style="bold")
            if ended:
                self._result(info, total)
                return True

    def _turn(self, remaining: int, prompt: str, written: bool) -> list[int] | None:
        """The tokens of one turn, the end-of-sequence token last where the budget allows it."""
        text, ids = "", []
        while len(ids) < remaining:
            self.say(f"[{remaining - len(ids)} tokens left; an empty line ends]", style="dim")
            try:
                line = self.read_line()
            except EOFError:
                self.at_end = True
                if not text and not written:
                    return None
                line = ""
            if not line:
                return [*ids, self.tokenizer.eos_token_id]
            text += _joined(text or ("" if written else prompt), line)
            ids = self._encoded(text)
        if len(ids) > remaining:
            self.say(f"The budget ends {len(ids) - remaining} tokens before your text does.")
        return ids[:remaining]

    def _encoded(self, text: str) -> list[int]:
        """The tokens of `text`; some tokenizers add a space before it of their own accord."""
        ids: list[int] = self.tokenizer.encode(text, special_tokens=False)
        if text.startswith(" "):
            bare: list[int] = self.tokenizer.encode(text[1:], special_tokens=False)
            if self.tokenizer.decode_completions([bare]) == [text]:
                return bare
        return ids

    def _step_all(self, ids: list[int]) -> tuple[Any, float, bool, Mapping[str, Any]]:
        total = 0.0
        for token in ids:
            observation, reward, terminated, truncated, info = self.env.step(token)
            total += float(reward)
            if terminated or truncated:
                return observation, total, True, info
        return observation, total, False, info

    def _result(self, info: Mapping[str, Any], total: float) -> None:
        reasons = {
            "stop": "you ended it",
            "length": "the budget ended it",
            "task": "the task ended it",
        }
        reason = reasons.get(str(info.get("finish_reason")), "it was cut short")
        scored = self.env.get_wrapper_attr("task").scored and "score" in info
        score = f", score {info['score']:.3f}" if scored else ""
        self.say(f"reward {total:.3f}{score} ({reason})", style="green")
        for name, value in dict(info.get("rewards", {})).items():
            if name != "score" and (name != "replies" or value):
                self.say(f"  {name}: {value:.3f}", style="green")
        for name, value in dict(info.get("metrics", {})).items():
            self.say(f"  {name.replace('_', ' ')}: {value:.3f}", style="dim")


def play(
    env: gymnasium.Env[Any, Any],
    console: Console,
    read_line: Callable[[], str],
    *,
    seed: int | None,
    episodes: int | None,
) -> None:
    """Play `episodes` episodes, or until the input ends."""
    if not isinstance(env.observation_space, gymnasium.spaces.Dict):
        raise CommandError(f"{env.spec.id if env.spec else env}: only text environments are played")
    player = Player(env, console, read_line)
    player.say(
        "Continue the text. Every line you type is written as it is; an empty line ends your "
        "turn, Ctrl-D or Ctrl-C the game.",
        style="dim",
    )
    played = 0
    try:
        while episodes is None or played < episodes:
            if not player.episode(seed if played == 0 else None) or player.at_end:
                break
            played += 1
    except KeyboardInterrupt:
        player.say("")
    player.say("Goodbye.", style="dim")


def _context(observation: Mapping[str, Any]) -> list[int]:
    mask = observation["attention_mask"].astype(bool)
    return [int(i) for i in observation["input_ids"][mask]]


def _joined(before: str, line: str) -> str:
    """`line` as it is to follow `before`: after a space where two words would otherwise touch."""
    if not before or before[-1].isspace() or line[0] in _NO_SPACE_BEFORE:
        return line
    return f" {line}"
