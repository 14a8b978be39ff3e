"""What an episode looks like: as text for terminals and as pixels for videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from textgym.envs.font import glyph_index, glyphs
from textgym.episode import Turn

RENDER_MODES = ("ansi", "human", "rgb_array")

DIM, BRIGHT, PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"

# Frames: characters a line, dots a character, and the grey levels of what is drawn.
_COLUMNS, _CELL_WIDTH, _CELL_HEIGHT, _SCALE, _MARGIN = 64, 6, 10, 2, 8
_BACKGROUND, _DIM_LEVEL, _BRIGHT_LEVEL = 16, 128, 240
# No tokenizer of ours averages more characters a token; longer texts scroll.
_CHARACTERS_A_TOKEN = 6


@dataclass(frozen=True)
class Scene:
    """What there is to see of one row.

    Args:
        prompt: the text given at reset.
        turns: who said what since.
        outcome: score and finish reason, once the episode has ended.
    """

    prompt: str
    turns: tuple[Turn, ...]
    outcome: tuple[float, str] | None

    def pieces(self) -> Iterator[tuple[str, Literal["dim", "bright"]]]:
        """The text in order, each piece with how it is shown: the agent's own words are bright."""
        yield self.prompt, "dim"
        for turn in self.turns:
            yield turn.text, "bright" if turn.role == "agent" else "dim"

    def verdict(self) -> str:
        """A closing line, empty while the episode goes on."""
        return "" if self.outcome is None else f"[score {self.outcome[0]:.2f}, {self.outcome[1]}]"


def ansi(scene: Scene) -> str:
    """`scene` as text with terminal colours: prompt dim, completion bright, then the score.

    >>> ansi(Scene("Once", (Turn("agent", " upon"),), None))
    '\\x1b[2mOnce\\x1b[0m\\x1b[1m upon\\x1b[0m'
    """
    styles = {"dim": DIM, "bright": BRIGHT}
    text = "".join(f"{styles[how]}{piece}{PLAIN}" for piece, how in scene.pieces() if piece)
    verdict = scene.verdict()
    return f"{text}\n{verdict}" if verdict else text


def rgb_array(scene: Scene, context_size: int) -> NDArray[np.uint8]:
    """`[H, W, 3] uint8`, `scene` as pixels; frames of one environment have one size.

    Args:
        scene: what to draw.
        context_size: the longest context, in tokens: it sets the number of lines.
    """
    capacity = max(4, -(-context_size * _CHARACTERS_A_TOKEN // _COLUMNS) + 2)
    cells = list(_lines(scene))[-capacity:]
    dots = np.full((capacity * _CELL_HEIGHT, _COLUMNS * _CELL_WIDTH), _BACKGROUND, np.uint8)
    font = glyphs()
    for row, line in enumerate(cells):
        top = row * _CELL_HEIGHT
        for column, (character, level) in enumerate(line):
            left = column * _CELL_WIDTH
            dots[top : top + 7, left : left + 5][font[glyph_index(character)]] = level
    pixels = np.pad(dots.repeat(_SCALE, 0).repeat(_SCALE, 1), _MARGIN, constant_values=_BACKGROUND)
    return np.repeat(pixels[..., None], 3, axis=2)


def _lines(scene: Scene) -> Iterator[list[tuple[str, int]]]:
    """The characters of each line with their grey levels, words kept whole where they fit."""
    levels = {"dim": _DIM_LEVEL, "bright": _BRIGHT_LEVEL}
    cells = [(c, levels[how]) for piece, how in scene.pieces() for c in piece]
    if verdict := scene.verdict():
        cells += [("\n", _DIM_LEVEL), *((c, _DIM_LEVEL) for c in verdict)]
    line: list[tuple[str, int]] = []
    for cell in cells:
        if cell[0] == "\n":
            yield line
            line = []
            continue
        line.append(cell)
        if len(line) > _COLUMNS:
            spaces = [i for i, (c, _) in enumerate(line) if c == " "]
            cut = spaces[-1] + 1 if spaces else _COLUMNS
            yield line[:cut][:_COLUMNS]
            line = line[cut:]
    yield line
