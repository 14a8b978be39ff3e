"""Auditing a reward: what it pays for texts that nobody wanted, before an agent finds out.

>>> from textgym.audit import audit
>>> from textgym.episode import Episode, Instance
>>> from textgym.rewards import Length
>>> from textgym.tokenization import Tokenizer
>>> tokenizer = Tokenizer.load()
>>> said = ["The fox ran home.", "An owl sang all night long.", "A hare."]
>>> samples = [Episode.written(Instance("Tell."), text, tokenizer) for text in said]
>>> report = audit(Length(target=6), samples, tokenizer, seed=0)
>>> [finding.probe for finding in report.findings if finding.suspicious][:2]
['shuffled', 'one word, repeated']
"""

from textgym.audit.probes import Probe, make_probes
from textgym.audit.report import Audit, Finding, audit

__all__ = ["Audit", "Finding", "Probe", "audit", "make_probes"]
