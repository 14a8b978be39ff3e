"""How fast TextGym is, each figure against a named reference measured in this process.

    python benchmarks/throughput.py --json benchmarks/results/throughput.json

Three models: `stories260k` (a folder, `--model`; left out where it is absent), the bundled one, and
a GPT-2 of 12 layers of 768 with random weights and 50,257 tokens, at 8 rows. Keys of the JSON, for
`stories260k` as they stand here, for the others with `bundled_` and `gpt2_` before them:

- rollout_over_generate_32, _128, _512, _8: tokens/s of SB3's `PPO.collect_rollouts` over Hugging
  Face `generate` on the same batch (sampling, `top_k=0`, no end-of-sequence), by the rows.
- rollout_over_generate_ragged: rows that end and begin anew by themselves, their texts 8 to 48
  tokens long, against the useful tokens of `generate`, whose batch runs until the longest is done.
- rollout_over_generate, rollout_with_kl_over_generate: at 64 rows, without and with the reference
  model's pass over what was written.
- update_over_bare_64 to _4096, by the tokens of a minibatch: tokens/s of `PPO.train` over a bare
  forward, backward, clip and optimizer step of the same sequences, which are 8 to 48 tokens long.
  The bare loop is the faster of two: one padded forward a minibatch, or parts of similar length.
  update_over_bare is that of 2,048.
- update_over_padded_*: over the first of the two. padding_*: the share of positions that are
  padding; padding_of_one_forward_*: what it would be in one forward a minibatch.
- update_over_flat: over `PPO.train` on SB3's own buffer of flattened transitions.
- round_over_parts: seconds of `PPO.learn` (a rollout, a reward, advantages, 4 epochs) over the sum
  of: decoding and sampling alone, the reward alone, advantages alone, 4 bare epochs (part_*_s).
  round_over_parts_with_generate: with `generate` in the place of the first.
- env_tokens_per_s, env_scored_tokens_per_s: `TokenVectorEnv.step` alone on random tokens, and on
  Story with its score; single_env_steps_per_s: `gym.make(...)` steps.
- env_step_us_64 to _4096: of a step in which no row ends, by the tokens that each of 1,024 rows
  holds, of at most 4,096; env_step_growth: the greatest over the first. env_step_us_narrow: at 64
  tokens of at most 64, whose arrays fit into the processor's caches.
- memory_growth_50k: growth of resident memory in one update of 8,192 tokens at a 50,257-token
  vocabulary over (8 chunks of float32 logits + 5 times the parameter bytes + 100 MB);
  memory_doubling_50k: growth of 16,384 tokens over that of 8,192, minus 1. Both with glibc's
  mapping threshold fixed at 1 MB; *_default_malloc without.
- import_textgym_s, textgym_list_s: wall time of a fresh process.
- stages: by model, where the time of a rollout and an epoch went.

With one torch thread times are those of the processor, so that other work on the machine tells less
in them; with more, of the wall.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from speed import environments, processes, rollouts, stages, updates
from speed.subjects import GPT2_TOKENIZER, STORIES, Subject, subjects
from speed.timing import Clock, about

PARTS = ("start", "environments", "rollouts", "updates", "rounds", "stages", "memory")


def of_subject(
    subject: Subject, clock: Clock, repeats: int, parts: list[str]
) -> tuple[dict[str, float], dict[str, Any]]:
    """The figures of a model, and its stages."""
    large = subject.name == "gpt2"
    repeats = max(1, repeats // 2) if large else repeats
    figures: dict[str, float] = {}
    if "rollouts" in parts:
        figures |= rollouts.rollout_figures(subject, clock, repeats)
        if not large:
            figures |= rollouts.kl_figures(subject, clock, repeats)
    if "updates" in parts:
        figures |= updates.update_figures(subject, clock, repeats)
        if subject.name == "stories260k":
            figures |= updates.flat_figures(subject, clock, repeats)
    if "rounds" in parts and not large:
        figures |= updates.round_figures(subject, clock, repeats)
    profile = (
        stages.stage_figures(subject, clock, max(1, repeats // 2)) if "stages" in parts else {}
    )
    return figures, profile


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    clock, repeats, parts = Clock(options.threads), options.repeats, options.only
    figures: dict[str, Any] = {}
    if "start" in parts:
        figures |= processes.start_up_figures(repeats)
    if "environments" in parts:
        figures |= environments.environment_figures(clock, repeats)
    found, skipped = subjects(options.model)
    profiles = {}
    for subject in found:
        prefix = "" if subject.name == "stories260k" else f"{subject.name}_"
        own, profile = of_subject(subject, clock, repeats, parts)
        figures |= {f"{prefix}{key}": value for key, value in own.items()}
        profiles |= {subject.name: profile} if profile else {}
        print(f"{subject.name} measured", file=sys.stderr, flush=True)
    if "memory" in parts:
        if GPT2_TOKENIZER.is_dir() and Path("/proc/self/statm").exists():
            figures |= processes.memory_figures(__file__)
        else:
            skipped["memory"] = "it needs /proc and the GPT-2 tokenizer"
    return figures | {"stages": profiles, "skipped": skipped}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--model", type=Path, default=STORIES, help="folder of stories260k")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--memory-of-update", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.filterwarnings("ignore", category=UserWarning)
    if options.memory_of_update:
        processes.memory_of_update(options.memory_of_update)
        return
    torch.set_num_threads(options.threads)
    report = measured(options)
    for name, value in report.items():
        print(f"{name:40} {value:14,.3f}" if isinstance(value, float) else f"{name}: {value}")
    report["about"] = about(options.threads, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
