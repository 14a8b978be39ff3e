"""Benchmarks of agents on the suites of `textgym.suites`.

- `agents`: the agents that are known by name, and those of others by ``"package.module:make"``.
- `learners`, `frozen`, `decoders`, `anchors`: what they are.
- `counting`: the wrapper that counts the tokens an agent learns from.
- `evaluation`: held-out episodes.
- `cell`: one agent on one task with one seed, and what came of it.

Nothing is imported here, so that reading results needs no torch.
"""
