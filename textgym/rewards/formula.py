"""Formulas as people and models write them: what they consist of, and whether two are equal."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

MOST_CHARACTERS = 1000

_ITSELF = "sqrt cbrt exp log sin cos tan cot sec csc asin acos atan sinh cosh tanh"
_OTHERS = {"ln": "log", "abs": "Abs", "arcsin": "asin", "arccos": "acos", "arctan": "atan"}
_FUNCTIONS = {name: name for name in _ITSELF.split()} | _OTHERS
_CONSTANTS = {"pi": "pi", "e": "E", "i": "I", "oo": "oo", "infty": "oo", "inf": "oo"}
_GREEK = "alpha beta gamma delta epsilon theta lambda mu nu rho sigma tau phi psi omega"
_LETTERS = frozenset(_GREEK.split())
# Names that Python keeps for itself.
_RENAMED = {"lambda": "lamda"}

_SIGNS = str.maketrans(
    {
        "\N{MULTIPLICATION SIGN}": "*",
        "\N{MIDDLE DOT}": "*",
        "\N{DOT OPERATOR}": "*",
        "\N{DIVISION SIGN}": "/",
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{GREEK SMALL LETTER PI}": " pi ",
        "\N{INFINITY}": " oo ",
        "\N{SUPERSCRIPT TWO}": "^2",
        "\N{SUPERSCRIPT THREE}": "^3",
        "\N{SQUARE ROOT}": r"\sqrt ",
    }
)
_TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]*)?|\.[0-9]+)|([A-Za-z]+)|(\*\*|[-+*/^()!]))")
_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+\.?[0-9]*|\.[0-9]+"
_PLAIN = re.compile(rf"([-+]?)\s*(?:([0-9]+)\s+)?({_NUMBER})(?:\s*/\s*({_NUMBER}))?\s*(%?)")
_DIGITS_OR_ONE = r"\s*(?:\{\s*(-?[0-9]+)\s*\}|([0-9]))"
_LATEX_FRACTION = re.compile(rf"([-+]?)\s*([0-9]*)\s*\\[dtc]?frac{_DIGITS_OR_ONE}{_DIGITS_OR_ONE}")
_LEFT_SIDE = re.compile(r"\s*[A-Za-z]\w?(?:\([A-Za-z]\))?\s*=(?!=)")
_UNORDERED = ("", "{}")


@dataclass(frozen=True)
class Formulas:
    """One formula, or a list of them.

    Attributes:
        brackets: those around a list, such as ``"[)"``; empty where there are none.
        parts: the formulas.
        numbers: what each is, where it is plainly a number; None where it is a formula.
    """

    brackets: str
    parts: tuple[str, ...]
    numbers: tuple[Fraction | None, ...]

    @property
    def plain(self) -> bool:
        """Whether all are plain numbers."""
        return None not in self.numbers


def read_formulas(text: str) -> Formulas | None:
    """What `text` consists of; None where it is no formula, or longer than 1000 characters.

    Formulas come as expressions that sympy can parse and that hold nothing but numbers, operators,
    parentheses and known names, so that evaluating one runs no code but that of mathematics.

    Example:
        >>> read_formulas(r"x = \\frac{1}{2}").numbers, read_formulas("2 sin x").parts
        ((Fraction(1, 2),), ('2 sin x',))
        >>> read_formulas("(1, 1,000]").brackets, read_formulas("__import__('os')")
        ('(]', None)
    """
    if len(text) > MOST_CHARACTERS:
        return None
    text = _without_layout(text)
    text = text[found.end() :] if (found := _LEFT_SIDE.match(text)) else text
    brackets, pieces = _split(text)
    parts, numbers = [], []
    for piece in pieces:
        number = as_number(piece)
        written = _as_expression(_from_latex(piece)) if number is None else piece
        if written is None:
            return None
        numbers.append(as_number(written) if number is None else number)
        parts.append(written if numbers[-1] is None else f"({numbers[-1]})")
    return Formulas(brackets, tuple(parts), tuple(numbers))


def as_number(text: str) -> Fraction | None:
    """A number written with digits alone; None for anything else.

    Example:
        >>> as_number("-1,000.5"), as_number("50%"), as_number("2^10")
        (Fraction(-2001, 2), Fraction(1, 2), None)
        >>> as_number("2 1/2") == as_number(r"2\\frac{1}{2}") == Fraction(5, 2)
        True
    """
    text = text.strip()
    while text[:1] == "(" and text[-1:] == ")" and "," not in text:  # (1,000) is a point
        text = text[1:-1].strip()
    if latex := _LATEX_FRACTION.fullmatch(text):
        sign, whole, *sides = latex.groups()
        text = f"{sign}{whole} {sides[0] or sides[1]}/{sides[2] or sides[3]}".strip()
    found = _PLAIN.fullmatch(text)
    if found is None:
        return None
    sign, whole, top, bottom, percent = found.groups()
    if whole and not bottom:
        return None
    below = _fraction(bottom) if bottom else Fraction(1)
    if below == 0:
        return None
    number = Fraction(whole or 0) + _fraction(top) / below
    return (-number if sign == "-" else number) / (100 if percent else 1)


def same(one: Formulas, other: Formulas, equal_parts: Any) -> bool:
    """Whether two lists of formulas are the same by ``equal_parts(i, j)`` of their items."""
    count = len(one.parts)
    if count != len(other.parts) or one.brackets != other.brackets:
        return False
    if one.brackets not in _UNORDERED:
        return all(equal_parts(i, i) for i in range(count))
    left = list(range(count))
    for i in range(count):
        partner = next((j for j in left if equal_parts(i, j)), None)
        if partner is None:
            return False
        left.remove(partner)
    return True


# ---------------------------------------------------------------------- with sympy
def equal(pair: tuple[Formulas, Formulas]) -> float:
    """1.0 where both are the same by sympy, else 0.0. Meant for a sandbox: it may take for ever."""
    one, other = pair
    return float(same(one, other, lambda i, j: _equal_expressions(one.parts[i], other.parts[j])))


def set_up() -> None:
    """Have sympy import what it needs for a comparison."""
    equal((Formulas("", ("(x+1)^2",), (None,)), Formulas("", ("x^2+2 x+1",), (None,))))


def _equal_expressions(one: str, other: str) -> bool:
    import sympy

    left, right = _parse(one), _parse(other)
    if left is None or right is None:
        return False
    return bool(left == right or sympy.simplify(left - right) == 0)


def _parse(text: str) -> Any:
    """A sympy expression; None where `text` is no formula after all."""
    import sympy
    from sympy.parsing import sympy_parser as parser

    makers = ("Symbol", "Integer", "Float", "Rational", "Function", "factorial", "factorial2")
    try:
        found = parser.parse_expr(
            text,
            local_dict=_names(),
            # No name but these can be reached, and no built-in function.
            global_dict={"__builtins__": {}, **{name: getattr(sympy, name) for name in makers}},
            transformations=(
                parser.auto_symbol,
                parser.auto_number,
                parser.rationalize,
                parser.factorial_notation,
                parser.convert_xor,
                parser.implicit_multiplication,
                parser.implicit_application,
                parser.function_exponentiation,
            ),
        )
    except MemoryError:
        raise
    except Exception:  # sympy raises many kinds for what is no formula
        return None
    return found if isinstance(found, sympy.Expr) else None


@functools.cache
def _names() -> dict[str, Any]:
    import sympy

    return {n: getattr(sympy, s) for n, s in (_FUNCTIONS | _CONSTANTS).items()}


# ---------------------------------------------------------------------- reading
def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").rstrip("."))


def _without_layout(text: str) -> str:
    text = text.translate(_SIGNS).strip().strip("$").strip().removesuffix(".")
    text = re.sub(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}", " ", text)
    text = re.sub(r"\{,\}|,\\!", ",", text)
    text = re.sub(r"\\(?:left|right|displaystyle|[,;:! ]|quad)(?![a-z])|\\?\$", " ", text)
    text = re.sub(r"\\?%", "%", text)
    return re.sub(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|°", " ", text).strip()


def _split(text: str) -> tuple[str, Sequence[str]]:
    """The brackets of a list, and its items at the commas; a text that is no list is one item."""
    if as_number(text) is not None:
        return "", [text]  # 1,000
    body, brackets = text, ""
    for opening, closing in (
        ("\\{", "\\}"),
        ("{", "}"),
        ("(", ")"),
        ("[", "]"),
        ("(", "]"),
        ("[", ")"),
    ):
        if text.startswith(opening) and text.endswith(closing):
            body, brackets = text[len(opening) : -len(closing)], opening[-1] + closing[-1]
            break
    items = _at_commas(body)
    if items is None:  # "(1, 2), (3, 4)"
        return "", _at_commas(text) or [text]
    if len(items) == 1:
        return ("{}", items) if text.startswith("\\{") else ("", [text])
    return brackets, items


def _at_commas(text: str) -> list[str] | None:
    """`text` at the commas that stand in no brackets; None where brackets do not match."""
    items, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return None
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    return items if depth == 0 else None


def _from_latex(text: str) -> str:
    """LaTeX's fractions, roots and names in plain writing."""
    text = re.sub(r"\\[dtc]frac", r"\\frac", text)
    text = re.sub(r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt\s*([0-9]+|[A-Za-z])", r"\\sqrt{\1}", text)
    # A mixed number: 2\frac{1}{3} is no product.
    mixed = r"(?<![\w.)}^])([0-9]+)\s*\\frac\s*\{([0-9]+)\}\s*\{([0-9]+)\}"
    text = re.sub(mixed, r"(\1+\2/\3)", text)
    before = None
    while text != before:  # from the inmost braces outwards
        before = text
        text = re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
        text = re.sub(r"\\sqrt\s*\[([^][{}]*)\]\s*\{([^{}]*)\}", r"((\2)^(1/(\1)))", text)
        text = re.sub(r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)", text)
        text = re.sub(r"(?<!\\)\{([^{}]*)\}(?!\s*\{)", r"(\1)", text) if text == before else text
    text = re.sub(r"\\(?:cdot|times|ast)(?![a-z])", "*", text)
    text = re.sub(r"\\div(?![a-z])", "/", text)
    return re.sub(r"\\([A-Za-z]+)", r" \1 ", text)


def _as_expression(text: str) -> str | None:
    """`text` if it holds nothing but numbers, operators, parentheses and known names."""
    tokens: list[tuple[str, str, str]] = []
    position = 0
    while position < len(text.rstrip()):
        found = _TOKEN.match(text, position)
        if found is None:
            return None
        tokens.append((found[1] or "", found[2] or "", found[3] or ""))
        position = found.end()
    written: list[str] = []
    for number, name, operator in tokens:
        if name and len(name) > 1 and name not in _FUNCTIONS and name not in _CONSTANTS:
            # "xy" is a product in a formula, and a word where it stands alone.
            if name not in _LETTERS and (len(name) > 2 or len(tokens) == 1):
                return None
            name = _RENAMED.get(name, name if name in _LETTERS else " ".join(name))
        written.append(number or name or operator)
    return " ".join(written).replace(" !", "!") or None
