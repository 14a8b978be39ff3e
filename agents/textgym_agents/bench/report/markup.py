"""Pieces of HTML that every part of the page is made of. What others wrote is shown, never run."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from textgym.statistics import Interval

LONGEST = 600
DASH = "\N{EN DASH}"


def visible(text: object, longest: int = LONGEST) -> str:
    """Plain text that can do nothing to what stands around it.

    Control and direction characters, and what is no valid Unicode, are replaced by a visible sign.

    >>> visible("left\N{RIGHT-TO-LEFT OVERRIDE}right", 8)
    'left\N{REPLACEMENT CHARACTER}rig ...'
    """
    found = str(text).encode("utf-8", "replace").decode()
    found = found if len(found) <= longest else found[:longest] + " ..."
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in found
    )


def shown(text: object, longest: int = LONGEST) -> str:
    """`text` for the inside of an element or of an attribute in double quotes.

    >>> shown('<img src="x">')
    '&lt;img src=&quot;x&quot;&gt;'
    """
    return html.escape(visible(text, longest))


def number(value: float | None, digits: int = 2) -> str:
    """`value` for a table, with a true minus sign; a dash for none.

    >>> number(-0.001), number(1234.5, 0), number(None)
    ('0.00', '1,234', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:z,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def ends(interval: Interval, digits: int = 2) -> str:
    """The interval's ends; nothing where there are none."""
    if not interval.known:
        return ""
    return f"{number(interval.low, digits)} to {number(interval.high, digits)}"


def sort_key(value: float | None) -> str:
    """The attribute that a column is sorted by; none for what is missing, which goes last."""
    return "" if value is None or not math.isfinite(value) else f' data-v="{value:.6g}"'


def figure_cell(value: float | None, digits: int = 2, more: str = "") -> str:
    """A number in a table."""
    return f'<td class="number"{sort_key(value)}>{number(value, digits)}{more}</td>'


def interval_cell(interval: Interval | None, digits: int = 2) -> str:
    """A figure over its interval in a table."""
    if interval is None:
        return figure_cell(None)
    return figure_cell(
        interval.value, digits, f'<small class="ends">{ends(interval, digits)}</small>'
    )


def heading(label: str, kind: str = "", *, sort: str = "none", attributes: str = "") -> str:
    """The head of a column that can be sorted; `label` is HTML.

    Args:
        label: what it says.
        kind: a class, such as ``"number"``.
        sort: how the rows are sorted by it now: none, ascending or descending.
        attributes: more of them, with a space before each.
    """
    css = f' class="{kind}"' if kind else ""
    return f'<th scope="col"{css} aria-sort="{sort}"{attributes}><span>{label}</span></th>'


def table(caption: str, heads: Iterable[str], rows: Iterable[str], foot: Iterable[str] = ()) -> str:
    """A table that scrolls within itself where it is wider than the page.

    Args:
        caption: a sentence, HTML.
        heads: ``<th>`` elements.
        rows, foot: ``<tr>`` elements; those of the foot stay where they are when rows are sorted.
    """
    below = "".join(foot)
    return (
        '<div class="scroll" tabindex="0"><table class="sortable">'
        f"<caption><span>{caption}</span></caption><thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody>{f'<tfoot>{below}</tfoot>' if below else ''}"
        "</table></div>\n"
    )


def listed(names: Sequence[str], final: str = "and") -> str:
    """Names in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {final} {names[-1]}"


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "seed"), counted(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
