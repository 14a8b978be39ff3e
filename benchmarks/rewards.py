"""How many episodes a second each reward judges, next to its library asked directly.

    python benchmarks/rewards.py --json benchmarks/results/rewards.json
    python benchmarks/rewards.py --classifier FOLDER --model FOLDER ...

Batches of 64 episodes, one thread, medians of the repeats; no cache helps, for no text comes twice.
`library` is the same texts handed to the package behind the reward, one by one as its users do.

With `--classifier` (a folder of a sequence classifier), also

- classifier_over_pipeline: seconds that a classifier reward takes in a training of 64 environments,
  from first to last call, over those of one batched `pipeline("text-classification")` call on the
  same texts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64
PACKAGES = ("textgym", "torch", "transformers", "sacrebleu", "nltk", "rapidfuzz", "rouge-score")
SCHEMA = '{"type": "object", "required": ["name"]}'
GRAMMAR = 'start: WORD (" " WORD)* "."\nWORD: /[A-Za-z,]+/\n'


def batches(count: int) -> Iterator[list[Any]]:
    """Batches of episodes, no text twice: sentences of a made-up world, right ones and wrong."""
    from textgym.episode import Episode, Instance
    from textgym.tasks.translation import TranslationTask
    from textgym.tokenization import Tokenizer

    task, tokenizer = TranslationTask(), Tokenizer.load()
    rng = np.random.default_rng(0)
    for number in range(count):
        episodes = []
        for i in range(BATCH):
            instance = task.sample(rng)
            words = f"{instance.target} {number} {i}".split()
            text = " ".join(rng.permutation(words)) if i % 2 else " ".join(words)
            known = Instance(instance.prompt, instance.target, {"tests": ["assert 1 + 1 == 2"]})
            episodes.append(Episode.written(known, text, tokenizer))
        yield episodes


def specs(folder: Path) -> dict[str, str]:
    """A specification of each reward that needs no model and no service."""
    (folder / "one.py").write_text("def one(episode):\n    return 1.0\n")
    (folder / "words.lark").write_text(GRAMMAR)
    return {
        **{
            name: name
            for name in (
                *("bleu", "chrf", "ter", "rouge1", "rouge2", "rouge_l", "meteor", "token_f1"),
                *("exact_match", "edit_similarity", "repetition", "loops", "readability"),
                *("novelty", "language:de"),
            )
        },
        "length": "length:40",
        "keywords": "keywords:happy,love,fun",
        "avoid": "avoid:hate,kill",
        "distinct": "distinct:2,window=256",
        "regex": "regex:[A-Z].*\\.",
        "json_schema": f"json_schema:{SCHEMA}",
        "grammar": f"grammar:{folder / 'words.lark'}",
        "format": "format:think|answer",
        "answer": "answer:last_line",
        "minimum of two": "minimum(length:40; keywords:fox)",
        "code (own process)": f"code:{folder / 'one.py'}:one",
        "maths (own process)": "maths:last_line",
        "unit_test (own process)": "unit_test",
    }


def libraries() -> dict[str, Callable[[Sequence[Any]], Any]]:
    """The packages behind rewards, asked for each text as their own documentation shows."""
    import pyphen
    from nltk.translate.meteor_score import single_meteor_score
    from py3langid.langid import classify
    from rapidfuzz.distance import Levenshtein
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    class NoWords:
        def synsets(self, word: str) -> list[Any]:
            return []

    def each(judge: Callable[[str, str], Any]) -> Callable[[Sequence[Any]], Any]:
        return lambda episodes: [judge(e.completion_text, e.instance.target) for e in episodes]

    bleu, chrf, ter = BLEU(effective_order=True), CHRF(), TER()
    scorers = {n: RougeScorer([n]) for n in ("rouge1", "rouge2", "rougeL")}
    hyphens = pyphen.Pyphen(lang="en_US")
    return {
        "bleu": each(lambda text, target: bleu.sentence_score(text, [target])),
        "chrf": each(lambda text, target: chrf.sentence_score(text, [target])),
        "ter": each(lambda text, target: ter.sentence_score(text, [target])),
        "rouge1": each(lambda text, target: scorers["rouge1"].score(target, text)),
        "rouge2": each(lambda text, target: scorers["rouge2"].score(target, text)),
        "rouge_l": each(lambda text, target: scorers["rougeL"].score(target, text)),
        "meteor": each(
            lambda text, target: single_meteor_score(
                target.split(), text.split(), wordnet=NoWords()
            )
        ),
        "edit_similarity": each(Levenshtein.normalized_similarity),
        "language:de": each(lambda text, target: classify(text)),
        "readability": each(lambda text, target: [hyphens.inserted(w) for w in text.split()]),
    }


def per_second(judge: Callable[[Sequence[Any]], Any], given: Sequence[list[Any]]) -> float:
    """Episodes a second, the median over the batches but the first, which warms up."""
    seconds = []
    for episodes in given:
        start = time.perf_counter()
        judge(episodes)
        seconds.append(time.perf_counter() - start)
    return BATCH / statistics.median(seconds[1:])


def reward_figures(repeats: int) -> dict[str, dict[str, float | None]]:
    """Episodes a second of every reward and of its library."""
    from textgym.rewards import from_spec

    given = list(batches(repeats + 1))
    asked = libraries()
    found: dict[str, dict[str, float | None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, spec in specs(Path(folder)).items():
            reward, _ = from_spec(spec)
            row: dict[str, float | None] = {"episodes_per_s": per_second(reward, given)}
            library = asked.get(name)
            row["library_per_s"] = None if library is None else per_second(library, given)
            found[name.partition(":")[0]] = row
            if hasattr(reward, "close"):
                reward.close()
            print(f"{name:26}", *(f"{v:12,.0f}" if v else f"{'-':>12}" for v in row.values()))
    return found


class Timed:
    """A reward function that adds up how long it takes, and keeps the texts it saw."""

    __name__ = "timed"

    def __init__(self, reward: Any) -> None:
        self.reward = reward
        self.seconds = 0.0
        self.texts: list[str] = []

    def __call__(self, episodes: Sequence[Any]) -> Any:
        """What the reward says, timed."""
        start = time.perf_counter()
        values = self.reward(episodes)
        self.seconds += time.perf_counter() - start
        self.texts += [e.completion_text for e in episodes]
        return values


def classifier_figures(classifier: Path, model: Path, timesteps: int) -> dict[str, float]:
    """A classifier reward within a training, against one pipeline call."""
    import torch
    from stable_baselines3 import PPO
    from transformers import pipeline

    from textgym.rewards import from_spec
    from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults

    torch.set_num_threads(1)
    timed = Timed(from_spec(f"classifier:{classifier}")[0])
    envs = make_vec_env(
        "textgym/Continuation-v0",
        n_envs=64,
        tokenizer=str(model),
        prompts=["Once upon a time"],
        max_new_tokens=40,
        rewards=[timed],
    )
    agent = PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": str(model)},
        seed=0,
        device="cpu",
        **ppo_defaults(envs),
    )
    agent.learn(timesteps)
    judge = pipeline("text-classification", model=str(classifier), device="cpu")
    judge(timed.texts[:BATCH], batch_size=BATCH)
    start = time.perf_counter()
    judge(timed.texts, batch_size=BATCH, truncation=True)
    of_pipeline = time.perf_counter() - start
    return {
        "classifier_over_pipeline": timed.seconds / of_pipeline,
        "classifier_texts": len(timed.texts),
        "classifier_seconds": timed.seconds,
        "pipeline_seconds": of_pipeline,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--classifier", type=Path, help="folder of a sequence classifier")
    parser.add_argument("--model", type=Path, help="folder of the language model to train")
    parser.add_argument("--timesteps", type=int, default=40_000)
    options = parser.parse_args()
    print(f"{'reward':26}{'episodes/s':>13}{'library/s':>13}")
    figures: dict[str, Any] = {"rewards": reward_figures(options.repeats)}
    if options.classifier and options.model:
        figures |= classifier_figures(options.classifier, options.model, options.timesteps)
        print(f"classifier over pipeline: {figures['classifier_over_pipeline']:.2f}")
    figures["about"] = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads": 1,
        "versions": {name: version(name) for name in PACKAGES},
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
