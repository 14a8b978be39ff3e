"""Answers that are mathematically equal, however they are written; formulas without an end."""

import random
from fractions import Fraction

import numpy as np
import pytest

from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Episode, Instance, Turn
from textgym.errors import RewardWarning
from textgym.rewards.formula import as_number, read_formulas
from textgym.rewards.maths import Maths

sympy = pytest.importorskip("sympy")


@pytest.fixture(scope="module")
def maths():
    reward = Maths("last_line", timeout=20, processes=2)
    yield reward
    reward.close()


def episode(text, target):
    ids = np.arange(3)
    instance = Instance("ask", target=target)
    return Episode(instance, ids, ids > 0, text, (Turn("agent", text),), "stop")


EQUAL = [
    ("0.5", "1/2"), (r"\frac12", "0.5"), (r"$\dfrac{1}{2}$.", "0.5"), ("50%", "0.5"),
    (r"50\%", "0.5"), (r"2\frac{1}{3}", "7/3"), ("2 1/3", r"\frac{7}{3}"), ("1,000", "1000"),
    (r"1{,}000", "1000"), ("-0", "0"), ("\N{MINUS SIGN}3", "-3"), ("(3)", "3"), ("007", "7"),
    ("x = 3", "3"), ("f(x) = 2x", "x*2"), (r"5 \text{ cm}", "5"), (r"90^\circ", "90"),
    ("(x+1)^2", "x^2+2x+1"), ("2xy", "2yx"), ("3x(x+1)", "3x^2+3x"), (r"x^{10}", "x**10"),
    (r"\frac{\sqrt{2}}{2}", r"1/\sqrt2"), (r"\sqrt[3]{8}", "2"), ("5!", "120"), ("2^10", "1024"),
    (r"\sin^2 x + \cos^2 x", "1"), ("log(8)/log(2)", "3"), (r"e^{i\pi}", "-1"), (r"3\pi", "3*pi"),
    (r"\frac{1}{\frac{2}{3}}", "1.5"), (r"\lambda + 1", r"1 + \lambda"), (r"\infty", "oo"),
    ("(1,2)", "(1, 2)"), ("(1, 2/4)", "(1, 0.5)"), ("1, 2", "2, 1"), (r"\{1,2\}", r"\{2, 1\}"),
    ("[0, 2x)", "[0, x+x)"), (r"\left(3, \frac{\pi}{2}\right)", "(3, pi/2)"),
    ("(1, x), (2, 3)", "(1, x), (2, 3)"), (" Paris.", "paris"), ("17*23", "391"),
]  # fmt: skip
UNEQUAL = [
    ("0.333", "1/3"), ("sin x", "cos x"), ("(2, 1)", "(1, 2)"), ("(0, 1)", "[0, 1)"),
    ("1, 2, 2", "1, 1, 2"), ("1, 2", "1"), ("", "1"), ("1/0", "5"), ("0/0", "5"),
    (r"\frac{x}{0}", "5"), ("(((((", "5"), ("+", "5"), ("x.__class__", "5"), ("xy", "yx"),
    ("__import__('os').abort()", "1"), ("lambda: 1", "1"), ("spari", "Paris"), ("(1,234)", "1234"),
    ("\N{ARABIC-INDIC DIGIT THREE}", "3"), ("\ud800\0", "3"), ("3" * 2000, "3"), ("1.5.2", "1.5"),
    ("(" * 300 + "3" + ")" * 299, "3"), ("sqrt", "x"), ("sqrt + 1", "x"), ("3 =", "3"),
]  # fmt: skip


def test_equal_and_unequal_answers(maths):
    pairs = EQUAL + UNEQUAL
    values = maths([episode(f"I think:\n{answer}", target) for answer, target in pairs])
    expected = [1.0] * len(EQUAL) + [0.0] * len(UNEQUAL)
    wrong = [pair for pair, v, e in zip(pairs, values, expected, strict=True) if v != e]
    assert not wrong
    assert values.dtype == np.float32
    # The first line is blank where the answer is: then "I think:" is the last line, and no answer.
    assert [maths.value(answer, target) for answer, target in pairs[::7]] == expected[::7]


def test_random_formulas_are_equal_to_their_expansions(maths):
    draw = random.Random(3)
    x, y = sympy.symbols("x y")
    episodes, expected = [], []
    for i in range(30):
        a, b, c = (draw.randint(-9, 9) for _ in range(3))
        formula = (a * x + b) * (x - c * y) + sympy.Rational(draw.randint(1, 9), 7)
        other = sympy.expand(formula) + (i % 2)
        episodes.append(episode(str(formula), sympy.latex(other) if i % 3 else str(other)))
        expected.append(1 - i % 2)
    assert maths(episodes).tolist() == expected


def test_random_numbers_are_compared_exactly(maths):
    draw = random.Random(4)
    for _ in range(100):
        number = Fraction(draw.randint(-999, 999), draw.randint(1, 99))
        more = number * 3 / 3
        assert as_number(f"{more.numerator * 2}/{more.denominator * 2}") == number
        assert maths.value(f"{number.numerator * 5}/{number.denominator * 5}", str(number)) == 1.0
        assert maths.value(f"{float(number):.3f}", str(number)) == (
            Fraction(f"{float(number):.3f}") == number
        )


def test_a_formula_without_an_end_costs_its_own_episode():
    maths = Maths("last_line", timeout=1.5, processes=2)
    episodes = [
        episode("9**9**9**9", "387420489"),
        episode("(x+1)^2", "x^2+2x+1"),
        episode("x", "y"),
        episode("99999999999!", "x"),
        episode("2x", "x+x"),
    ]
    with pytest.warns(RewardWarning, match="longer than 1.5 s|MB of memory|could not judge"):
        values = maths(episodes)
    assert values.tolist() == [0.0, 1.0, 0.0, 0.0, 1.0]
    assert maths.figures()["failures"] == 2
    with pytest.raises(RuntimeError, match="could not be compared"):
        maths.value("9**9**9**9", "3")
    maths.close()


def test_a_question_is_no_answer_where_plain_numbers_are_asked_for():
    plain = Maths("last_line", plain=True, processes=1)
    assert [plain.value(text, "391") for text in ("17*23", "391", "391.0", "782/2")] == [0, 1, 1, 1]
    assert plain.value("2(x+1)", "2x+2") == 1.0  # no number is asked for
    plain.close()


def test_where_the_answer_is_found(maths):
    boxed = Maths("boxed", processes=1)
    assert boxed.value(r"So \boxed{3}, or \boxed{\frac{4}{2}}", r"Hence \boxed{2}.") == 1.0
    assert boxed.value("2", "2") == 0.0
    assert Maths(tag="final").value("<final> 1,0 </final> <final>0.50</final>", "1/2") == 1.0
    assert maths.value("2\n" + "x" * 10**6, "2") == 0.0


def test_what_is_no_formula():
    for text in ("a_b", "x[0]", "x;y", "'a'", "x@y", "x else y", "\\", "x = y = 2", "||", "{x:y}"):
        assert read_formulas(text) is None, text
    for text in ("{" * 500 + "}" * 500, "\\frac{" * 160, "1," * 500, "^" * 1000, "\\sqrt[3]" * 140):
        read_formulas(text)  # in no time


def test_a_missing_target_is_an_error(maths):
    with pytest.raises(ValueError, match="none"):
        maths([episode("3", None)])


def test_from_a_specification():
    reward = Maths.from_arguments("boxed,plain=true,timeout=2,fallback=0.5,name=sums")
    assert (reward.how, reward.plain, reward.fallback, reward.name) == ("boxed", True, 0.5, "sums")
    assert (reward.sandbox.timeout, reward.range) == (2.0, (0.0, 1.0))


@pytest.mark.parametrize("arguments", [{"how": "bocksed"}, {"fallback": 2.0}, {"timeout": 0}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=r"`how`|`fallback`|`timeout`"):
        Maths(**arguments)


def test_in_a_vector_env(copy_task, tokenizer):
    reward = Maths("last_line", processes=1)
    envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer, rewards=[reward])
    envs.reset(options={"prompt": "Copy 7:"})
    envs.step(np.array([tokenizer.encode("7")[0], tokenizer.backend.token_to_id("q")]))
    _, _, _, _, infos = envs.step(np.full(2, tokenizer.eos_token_id))
    assert infos["rewards"]["maths"].tolist() == [1.0, 0.0]
    reward.close()
