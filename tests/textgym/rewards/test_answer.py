"""`Answer` and `extract_answer`: hand-computed."""

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards.answer import Answer, extract_answer, same_answer

GARBAGE = [
    "",
    " \n\t",
    "\x00\x07",
    "\ud800 lone",
    "\ufffd\ufffd",
    "é" * 1000,
    "{" * 1_000_000,
    "\\boxed{" * 150_000,
    "<answer>" * 120_000,
    "####" * 250_000,
    "\\" * 1_000_000,
    "9" * 1_000_000,
    "1," * 500_000,
]


def episode(text, target="42"):
    ids = np.arange(3)
    return Episode(Instance("p", target), ids, ids > 0, text, (Turn("agent", text),), "stop")


@pytest.mark.parametrize(
    ("how", "text", "expected"),
    [
        ("tag", "<answer>a</answer><answer> b\n</answer> c", "b"),
        ("tag", "<answer>a</answer> <answer>b", "a"),
        ("tag", "a</answer>", None),
        ("tag", "<answer></answer>", None),
        ("tag", "<answer>x<answer>y</answer>", "y"),
        ("tag", "<ANSWER>a</ANSWER>", None),
        ("boxed", r"\boxed{1} \boxed{2}", "2"),
        ("boxed", r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("boxed", r"\boxed{\{1, 2\}} and {x}", r"\{1, 2\}"),
        ("boxed", r"\boxed{\text{a \} b}} }", r"\text{a \} b}"),
        ("boxed", r"\boxed{1} \boxed{2", None),
        ("boxed", r"\boxed{\boxed{5}}", "5"),
        ("boxed", r"\boxed{ }", None),
        ("boxed", "5", None),
        ("hash", "2 + 2\n#### 4\nbye", "4"),
        ("hash", "#### 3\n#### 4", "4"),
        ("hash", "####", None),
        ("hash", "## 4", None),
        ("last_line", "a\n b \n\n  \n", "b"),
        ("last_line", "\n", None),
        ("last_number", "3 foxes, 1,234.50 owls", "1234.50"),
        ("last_number", "it is -3", "-3"),
        ("last_number", "5-3", "3"),
        ("last_number", "it is \N{MINUS SIGN}3.", "-3"),
        ("last_number", "1,2", "2"),
        ("last_number", "12,3456", "3456"),
        ("last_number", "$1,000.", "1000"),
        ("last_number", "it is .5", ".5"),
        ("last_number", "none", None),
        ("last_number", "٣", None),
    ],
)
def test_extraction(how, text, expected):
    assert extract_answer(text, how) == expected


def test_another_tag():
    assert extract_answer("<result>7</result><answer>8</answer>", tag="result") == "7"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Paris.", "paris", True),
        ("new  york", "New\nYork", True),
        ("1,000", "1000", True),
        ("1000.0", "1000", True),
        ("+07", "7", True),
        ("\N{MINUS SIGN}7", "-7", True),
        ("-0", "0", True),
        ("10,00", "1000", False),
        ("1e3", "1000", False),
        ("a,b", "ab", False),
        ("1.2.", "1.2", True),
        ("7..", "7", False),
        ("nan", "NaN", True),
        ("infinity", "1", False),
        ("9" * 9000, "9" * 9000 + ".0", True),
        ("9" * 9000, "9" * 8999 + "8", False),
    ],
)
def test_equality(one, other, expected):
    assert same_answer(one, other) is expected
    assert same_answer(other, one) is expected


def test_batched_equals_single_and_the_target_is_read_the_same_way():
    reward = Answer("hash")
    episodes = [
        episode("#### 72", "It is\n#### 72"),
        episode("#### 72", "72"),
        episode("72", "72"),
        episode("#### 7", "72"),
    ]
    values = reward(episodes)
    assert values.dtype == np.float32
    assert values.tolist() == [1, 1, 0, 0]
    assert values.tolist() == [reward([e])[0] for e in episodes]
    assert Answer("last_number")([episode("so 42 it is", "the answer is 42")]).tolist() == [1]


@pytest.mark.parametrize("how", ["tag", "boxed", "hash", "last_line", "last_number"])
def test_garbage_is_wrong_and_never_an_error(how):
    assert Answer(how)([episode(text) for text in GARBAGE]).tolist() == [0] * len(GARBAGE)


def test_emptiness_never_pays():
    assert Answer("last_line")([episode("", ""), episode(" ", "")]).tolist() == [0, 0]


def test_a_missing_target_is_named():
    with pytest.raises(ValueError, match="'p' has none"):
        Answer()([episode("<answer>1</answer>", None)])


def test_bad_arguments():
    with pytest.raises(ValueError, match="`boxed`"):
        Answer("box")
    for tag in ("", "<answer>", " a"):
        with pytest.raises(ValueError, match="name of a tag"):
            Answer(tag=tag)
    with pytest.raises(ValueError, match="`how` cannot"):
        extract_answer("a", "nohow")


def test_spec_arguments():
    reward = Answer.from_arguments("tag,tag=result,name=mine")
    assert (reward.how, reward.tag, reward.name) == ("tag", "result", "mine")
    assert Answer.from_arguments("").how == "tag"
