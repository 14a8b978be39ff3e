"""The report of `textgym audit-reward` as one page of HTML, without network or scripts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textgym.audit import Audit, Finding
from textgym.episode import Episode
from textgym_agents.bench.report.markup import shown

_BINS = 24

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --paper: #fbfaf7; --line: #d9d5cb;
  --dim: #6b7280; --bad: #b3261e; --bar: #3b6ea5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --paper: #16181d; --line: #343842;
  --dim: #9aa1ad; --bad: #ff8a80; --bar: #7fb2e5; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.dim { color: var(--dim); } .bad { color: var(--bad); font-weight: 600; }
pre { white-space: pre-wrap; margin: 0; font: inherit; }
svg { width: 100%; height: auto; } svg rect { fill: var(--bar); } svg text { fill: var(--dim);
  font: 12px system-ui; }
"""


def page(report: Audit, spec: str, env_id: str) -> str:
    """The whole page. Texts are escaped: whatever a model wrote is shown, never run."""
    found = [finding for finding in report.findings if finding.suspicious]
    verdict = (
        f'<p class="bad">{len(found)} of {len(report.findings)} kinds of worthless text are paid '
        f"like good ones: {shown(', '.join(f.probe for f in found))}.</p>"
        if found
        else f"<p>None of {len(report.findings)} kinds of worthless text is paid like good ones."
        "</p>"
    )
    problems = "".join(f'<p class="bad">{shown(problem)}</p>' for problem in report.problems)
    spread = ", ".join(f"{name} {value:.4g}" for name, value in report.spread.items())
    low, high = report.range
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of {shown(spec)}</title><style>{_STYLE}</style></head><body>
<h1>Audit of the reward <code>{shown(spec)}</code></h1>
<p class="dim">On {len(report.rewards)} texts that a model wrote in {shown(env_id)}.</p>
{verdict}{problems}
<h2>What the texts are paid</h2>
<p>{spread}. Declared range [{low:g}, {high:g}].
{report.on_length.capitalize()}.</p>
{_histogram(report.rewards)}
<h2>What worthless texts are paid</h2>
<p class="dim">Above: the share of the model's own texts that are paid less.</p>
<table><tr><th>text</th><th class="number">mean</th><th class="number">most</th>
<th class="number">above</th><th>the one paid most</th></tr>
{"".join(_finding_row(finding) for finding in report.findings)}</table>
<h2>The best paid</h2>{_samples(report.best)}
<h2>The worst paid</h2>{_samples(report.worst)}
</body></html>
"""


def _finding_row(finding: Finding) -> str:
    means = f'<br><span class="bad">{shown(finding.means)}</span>' if finding.suspicious else ""
    return (
        f'<tr><td>{shown(finding.probe)}{means}</td><td class="number">{finding.mean:.3f}</td>'
        f'<td class="number">{finding.best:.3f}</td>'
        f'<td class="number">{finding.percentile:.0%}</td>'
        f"<td><pre>{shown(finding.text, 200)}</pre></td></tr>\n"
    )


def _samples(rows: Sequence[tuple[float, Episode]]) -> str:
    cells = "".join(
        f'<tr><td class="number">{value:.3f}</td><td class="dim">{shown(episode.prompt)}</td>'
        f"<td><pre>{shown(episode.completion_text)}</pre></td></tr>\n"
        for value, episode in rows
    )
    head = '<tr><th class="number">reward</th><th>prompt</th><th>text</th></tr>'
    return f"<table>{head}{cells}</table>"


def _histogram(values: np.ndarray) -> str:
    counts, edges = np.histogram(values, bins=_BINS)
    width, height = 720 / _BINS, 160.0
    bars = "".join(
        f'<rect x="{i * width + 1:.1f}" y="{height * (1 - c / counts.max()):.1f}" '
        f'width="{width - 2:.1f}" height="{height * c / counts.max():.1f}"><title>'
        f"{edges[i]:.3g} to {edges[i + 1]:.3g}: {c} texts</title></rect>"
        for i, c in enumerate(counts.tolist())
    )
    return (
        f'<svg viewBox="0 0 720 185" role="img" aria-label="histogram of the rewards">{bars}'
        f'<text x="0" y="180">{edges[0]:.3g}</text>'
        f'<text x="720" y="180" text-anchor="end">{edges[-1]:.3g}</text></svg>'
    )
