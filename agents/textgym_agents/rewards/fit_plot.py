"""A reliability diagram as an SVG file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence

from textgym_agents.rewards.fit_calibration import Bin

_SIZE, _LEFT, _TOP = 360, 64, 48
_STYLE = """
svg { --ink: #1d2430; --paper: #fbfaf7; --line: #d9d5cb; --before: #b08a3e; --after: #3b6ea5; }
@media (prefers-color-scheme: dark) { svg { --ink: #e8e6e1; --paper: #16181d; --line: #343842;
  --before: #d9b36a; --after: #7fb2e5; } }
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.line { stroke: var(--line); fill: none; }
"""


def reliability_svg(before: Sequence[Bin], after: Sequence[Bin], title: str) -> str:
    """Predicted and observed shares, before and after temperature scaling.

    Args:
        before: texts by the model's own probability.
        after: by the calibrated one.
        title: above the diagram.
    """
    parts = [f"<style>{_STYLE}</style>", '<rect width="100%" height="100%" fill="var(--paper)"/>']
    parts.append(f'<text x="{_LEFT}" y="28" font-weight="600">{html.escape(title)}</text>')
    for step in range(0, 11, 2):
        share = step / 10
        x, y = _at(share, share)
        parts.append(f'<path class="line" d="M{x} {_at(0, 0)[1]}V{_TOP}M{_LEFT} {y}h{_SIZE}"/>')
        parts.append(f'<text x="{x}" y="{_TOP + _SIZE + 20}" text-anchor="middle">{share}</text>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{share}</text>')
    (x, y), (u, v) = _at(0, 0), _at(1, 1)
    parts.append(f'<path d="M{x} {y}L{u} {v}" stroke="var(--ink)" stroke-dasharray="4 4"/>')
    for number, (name, bins) in enumerate((("before", before), ("after", after))):
        parts.append(_curve(name, bins))
        y = _TOP + 20 + 20 * number
        parts.append(f'<circle cx="{_LEFT + 16}" cy="{y}" r="5" fill="var(--{name})"/>')
        parts.append(f'<text x="{_LEFT + 28}" y="{y + 4}">{name} temperature scaling</text>')
    middle = _TOP + _SIZE / 2
    parts.append(
        f'<text x="{_LEFT + _SIZE / 2}" y="{_TOP + _SIZE + 44}" text-anchor="middle">'
        "predicted probability</text>"
        f'<text transform="translate(20 {middle}) rotate(-90)" text-anchor="middle">'
        "observed share</text>"
    )
    width, height = _LEFT + _SIZE + 24, _TOP + _SIZE + 60
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{html.escape(title)}">\n'
        f"{body}\n</svg>\n"
    )


def _at(predicted: float, observed: float) -> tuple[float, float]:
    return round(_LEFT + _SIZE * predicted, 1), round(_TOP + _SIZE * (1.0 - observed), 1)


def _curve(name: str, bins: Sequence[Bin]) -> str:
    total = sum(b.count for b in bins)
    points = [_at(b.predicted, b.observed) for b in bins]
    path = "L".join(f"{x} {y}" for x, y in points)
    dots = "".join(
        # Areas tell how many texts there are.
        f'<circle cx="{x}" cy="{y}" r="{2.0 + 14.0 * (b.count / total) ** 0.5:.1f}" '
        f'fill="var(--{name})" fill-opacity="0.6"><title>{b.count} texts: predicted '
        f"{b.predicted:.2f}, observed {b.observed:.2f}</title></circle>"
        for b, (x, y) in zip(bins, points, strict=True)
    )
    return f'<path d="M{path}" stroke="var(--{name})" stroke-width="2" fill="none"/>{dots}'
