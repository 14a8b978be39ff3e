"""`Format`: hand-computed, tags and sections."""

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards.format import Format

GARBAGE = [
    "",
    " \n\t",
    "\x00\x07",
    "\ud800 lone",
    "\ufffd\ufffd",
    "<think>" * 140_000,
    "<think></think>" * 60_000,
    "#" * 1_000_000,
    "# \n" * 300_000,
    "# summary\n" * 100_000,
    "#" + " " * 1_000_000,
]


def episode(text):
    ids = np.arange(3)
    return Episode(Instance("p"), ids, ids > 0, text, (Turn("agent", text),), "stop")


@pytest.mark.parametrize(
    ("text", "steps", "steps_outside"),
    [
        # k = 2: quarters of the value where outside text counts, thirds where it does not.
        ("<think>a</think><answer>b</answer>", 4, 3),
        (" <think>a\n</think>\n\n<answer> b</answer> ", 4, 3),
        ("so <think>a</think><answer>b</answer>", 3, 3),
        ("<think>a</think> so <answer>b</answer>", 3, 3),
        ("<think>a</think><answer>b</answer>.", 3, 3),
        ("<answer>b</answer><think>a</think>", 2, 2),
        ("<think>a <answer>b</answer></think>", 2, 2),
        ("<think>a<answer></think>b</answer>", 2, 2),
        ("<think>a</think>", 1, 1),
        ("<answer>b</answer>", 1, 1),
        ("<think> </think><answer>b</answer>", 1, 1),
        ("<think>a</think><answer>b", 1, 1),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 1, 1),
        ("<think>a</think></think><answer>b</answer>", 1, 1),
        ("</think>a<think><answer>b</answer>", 1, 1),
        ("<THINK>a</THINK>", 0, 0),
        ("a b", 0, 0),
        ("", 0, 0),
    ],
)
def test_tags(text, steps, steps_outside):
    assert Format().value(text) == steps / 4
    assert Format(["think", "answer"], outside=True).value(text) == steps_outside / 3


@pytest.mark.parametrize(
    ("text", "steps", "steps_outside"),
    [
        ("# Summary\na\n# Next steps\nb", 4, 3),
        ("\n## SUMMARY: ##\n\na\n\n#\tNext  Steps\nb\n", 4, 3),
        ("# Summary\n## Why\na\n# Next steps\n# How\nb", 4, 3),
        ("Well.\n# Summary\na\n# Next steps\nb", 3, 3),
        ("# Title\n# Summary\na\n# Next steps\nb", 3, 3),
        ("# Next steps\nb\n# Summary\na", 2, 2),
        ("# Summary\n# Next steps\nb", 1, 1),
        ("# Summary\n## Why\n# Next steps\nb", 1, 1),
        ("# Summary\na\n# Next steps\nb\n# Summary\nc", 1, 1),
        ("# Summary\na\n # Next steps\nb", 1, 1),
        ("# Summary\na\n#Next steps\nb", 1, 1),
        ("####### Summary\na", 0, 0),
        ("Summary\na", 0, 0),
        ("", 0, 0),
    ],
)
def test_sections(text, steps, steps_outside):
    titles = ["Summary", "Next steps"]
    assert Format(sections=titles).value(text) == steps / 4
    assert Format(sections=titles, outside=True).value(text) == steps_outside / 3


@pytest.mark.parametrize(
    "reward", [Format(), Format(["think"], outside=True), Format(sections=["Summary"])]
)
def test_garbage_pays_0_and_batched_is_single(reward):
    values = reward([episode(text) for text in GARBAGE])
    assert values.dtype == np.float32
    assert values.tolist() == [0] * len(GARBAGE)
    texts = ["<think>a</think>", "b <think>a</think>", "# Summary\nc", "x\n# Summary\nc"]
    values = reward([episode(text) for text in texts])
    assert values.tolist() == [np.float32(reward.value(text)) for text in texts]
    assert values.max() > 0


def test_bad_arguments():
    with pytest.raises(ValueError, match="either"):
        Format(["a"], sections=["b"])
    for names in ([], ["a", "a"], ["a", ""]):
        with pytest.raises(ValueError, match="different names"):
            Format(names)
        with pytest.raises(ValueError, match="different names"):
            Format(sections=names)
    with pytest.raises(ValueError, match="without brackets"):
        Format(["<think>"])
    for names in ("think", [3]):
        with pytest.raises(TypeError, match="list of str"):
            Format(names)


def test_spec_arguments():
    assert Format.from_arguments("").tags == ("think", "answer")
    assert Format.from_arguments("plan|code,outside=true").tags == ("plan", "code")
    reward = Format.from_arguments("sections=Summary|Next steps")
    assert (reward.tags, reward.sections) == ((), ("summary", "next steps"))
