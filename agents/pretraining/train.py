"""Make the embedded tokenizer and the bundled language model, from our own tasks alone.

    python agents/pretraining/train.py --out FOLDER --embedded textgym/embedded

The model first learns to do every task as its oracle does. What it can do by then is measured, and
it learns to be careless (see `corpus`) where it does so well that little would be left to learn by
reinforcement: in the share that brings its mean score down to about `AIM`. Where that has brought
it down too far, because it cannot tell soon enough which way a text is going, a last part relents.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from corpus import COURSES, Corpus, Course
from tokenizer import VOCAB_SIZE, train_tokenizer
from torch.utils.data import DataLoader

from textgym import Tokenizer
from textgym_agents.lm import CausalLM, imitation, parameter_count
from textgym_agents.sb3 import LMPolicy, evaluate, make_vec_env

AIM = 0.45  # mean score to begin reinforcement learning from, where the model can do better
MOST_CARELESS = 0.7
STORY = "textgym/Story-v0"
# In parts, so that it is no matter of all or nothing; above a half, or else the likeliest story
# does all that is asked.
STORY_CARELESSNESS, STORY_RELENTED = 0.58, 0.52
TOO_LOW = 0.3  # below this mean score, be half as careless
MAX_POSITIONS = 512
# Steps, and the share of the learning rates, of the three parts.
CAREFUL, CARELESS, RELENTING = (9600, 1.0), (2400, 0.3), (1200, 0.3)


def build(tokenizer: Tokenizer) -> CausalLM:
    """A small Llama, its weights random."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=128,
        intermediate_size=336,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    return CausalLM(LlamaForCausalLM(config), tokenizer.vocab_size, MAX_POSITIONS)


def optimizers(lm: CausalLM, scale: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the body, AdamW for the rest.

    Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024. On these
    texts it needs a tenth of the steps of AdamW.
    """
    embedding = lm.model.get_input_embeddings().weight  # the head as well: they are tied
    body = [p for p in lm.parameters() if p is not embedding]
    matrices = [p for p in body if p.ndim == 2]
    rest = [embedding, *(p for p in body if p.ndim != 2)]
    return [
        torch.optim.Muon(
            matrices, lr=1e-2 * scale, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=3e-3 * scale, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def fit(
    lm: CausalLM,
    tokenizer: Tokenizer,
    carelessness: Mapping[str, float],
    *,
    steps: int,
    rows: int,
    seed: int,
    scale: float,
) -> None:
    """Learn the tasks, careless to the degrees given."""
    corpus = Corpus(tokenizer, "train", seed, carelessness, rows)
    # In a process of its own, as far ahead as memory does not mind.
    stream = DataLoader(corpus, batch_size=None, num_workers=1, prefetch_factor=64)
    began = time.time()
    losses: list[float] = []

    def on_step(done: int, loss: float) -> bool:
        losses.append(loss)
        if done % 100 == 0:
            mean = sum(losses[-100:]) / 100
            print(f"{done:6} loss {mean:.4f} {time.time() - began:.0f} s", flush=True)
        return True

    imitation.fit(lm, stream, optimizers(lm, scale), steps=steps, on_step=on_step)


def scores(
    lm: CausalLM, tokenizer: Tokenizer, course: Course, split: str, episodes: int
) -> tuple[float, float, list[str]]:
    """Mean score sampled at temperature 1, and greedy, with a few of the sampled episodes."""
    envs = make_vec_env(course.id, n_envs=64, split=split, tokenizer=tokenizer, seed=1)
    try:
        policy = LMPolicy(
            envs.observation_space,
            envs.action_space,
            lambda _: 0.0,
            model=lm.model,
            kl_coef=0.0,
        )
        sampled = evaluate(policy, envs, episodes, seed=1)
        greedy = evaluate(policy, envs, episodes, deterministic=True, seed=1)
    finally:
        envs.close()
    texts = [tokenizer.decode(e.input_ids.tolist()) for e in sampled.episodes[:3]]
    return float(sampled.mean_score or 0.0), float(greedy.mean_score or 0.0), texts


def choose_carelessness(lm: CausalLM, tokenizer: Tokenizer) -> dict[str, float]:
    """How careless to be in each course, from what the model can do (train split)."""
    chosen = {STORY: STORY_CARELESSNESS}
    for course in COURSES:
        able, _, _ = scores(lm, tokenizer, course, "train", 256)
        if course.id != STORY:
            chosen[course.id] = round(min(MOST_CARELESS, max(0.0, 1 - AIM / max(able, 1e-9))), 3)
        print(f"{course.id:32} able {able:.3f} careless {chosen[course.id]:.3f}", flush=True)
    return chosen


def relent(
    lm: CausalLM, tokenizer: Tokenizer, carelessness: Mapping[str, float]
) -> dict[str, float]:
    """Half of `carelessness` where it has brought the score down too far (train split)."""
    chosen = dict(carelessness)
    for course in COURSES:
        reached, _, _ = scores(lm, tokenizer, course, "train", 256)
        if reached < TOO_LOW:
            half = round(chosen[course.id] / 2, 3)
            chosen[course.id] = STORY_RELENTED if course.id == STORY else half
        print(f"{course.id:32} score {reached:.3f} careless {chosen[course.id]:.3f}", flush=True)
    return chosen


def measure(lm: CausalLM, tokenizer: Tokenizer, seed: int) -> dict[str, Any]:
    """Held-out perplexity, scores and sample texts."""
    held_out = itertools.islice(Corpus(tokenizer, "test", seed, {}, 64), 32)
    found: dict[str, Any] = {
        "perplexity": round(math.exp(imitation.held_out_loss(lm, list(held_out))), 4)
    }
    for course in COURSES:
        sampled, greedy, texts = scores(lm, tokenizer, course, "test", 256)
        found[course.id] = {
            "sampled": round(sampled, 4),
            "greedy": round(greedy, 4),
            "samples": texts,
        }
        print(f"{course.id:32} sampled {sampled:.3f} greedy {greedy:.3f}", flush=True)
    return found


def write_card(folder: Path, figures: dict[str, Any]) -> None:
    """The model card, every figure of it measured."""
    table = "\n".join(
        f"| `{course.id}` | {figures[course.id]['sampled']} | {figures[course.id]['greedy']} | "
        f"{figures['carelessness'][course.id]} |"
        for course in COURSES
    )
    samples = "\n\n".join(
        "> " + figures[course.id]["samples"][0].strip().replace("\n", "\n> ") for course in COURSES
    )
    card = f"""# The language model bundled with TextGym

A Llama of {figures["parameters"]:,} parameters (4 layers, 128 wide, {VOCAB_SIZE:,} tokens), made to
be trained further by reinforcement learning. It does every task of the suite a little.

- Data: what `agents/pretraining/` makes from the tasks below (train split, first level), and
  nothing else. First every task is done as its oracle does it; then, so that something is left to
  learn, carelessly: in the share below the answer is one to another prompt (in a story, each thing
  asked for is left out with that probability).
- Training: {figures["steps"]:,} steps of {figures["rows"]} episodes ({figures["seconds"]:.0f} s on
  {figures["threads"]} thread, and a process that makes the data), Muon and AdamW, seed
  {figures["seed"]}.
- Weights: rounded to bfloat16 as stored, before anything below was measured.
- Held-out perplexity: {figures["perplexity"]} a token of the oracles'.
- Scores on 256 held-out prompts of each task:

| environment | sampled at temperature 1 | greedy | careless |
|---|---|---|---|
{table}

Made again by

```
python agents/pretraining/train.py --out agents/textgym_agents/bundled --embedded textgym/embedded
```

Samples on held-out prompts:

{samples}

Licence: MIT, as the rest of TextGym.
"""
    (folder / "README.md").write_text(card, encoding="utf-8")


def finish(lm: CausalLM, tokenizer: Tokenizer, folder: Path, about: dict[str, Any]) -> None:
    """Round, measure and write."""
    lm.model.to(torch.bfloat16).save_pretrained(folder)
    lm.model.float().eval()
    figures = measure(lm, tokenizer, about["seed"]) | about
    figures["parameters"] = parameter_count(lm.model)
    write_card(folder, figures)
    print(json.dumps(figures, indent=2))


def main() -> None:
    """Train, round, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--embedded", type=Path, help="folder for a copy of the tokenizer")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps, for a trial")
    parser.add_argument("--rows", type=int, default=48, help="episodes a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    began = time.time()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(arguments.out, arguments.seed)
    if arguments.embedded:
        arguments.embedded.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(arguments.out / name, arguments.embedded / name)
    lm = build(tokenizer)
    carelessness: dict[str, float] = {}
    done = 0
    for number, (steps, scale) in enumerate((CAREFUL, CARELESS, RELENTING)):
        if number == 1:
            carelessness = choose_carelessness(lm, tokenizer)
        elif number == 2:
            carelessness = relent(lm, tokenizer, carelessness)
        count = int(arguments.share * steps)
        seed = arguments.seed + number
        fit(lm, tokenizer, carelessness, steps=count, rows=arguments.rows, seed=seed, scale=scale)
        done += count
    about = {
        "carelessness": carelessness,
        "seconds": time.time() - began,
        "steps": done,
        "rows": arguments.rows,
        "seed": arguments.seed,
        "threads": arguments.threads,
    }
    finish(lm, tokenizer, arguments.out, about)


if __name__ == "__main__":
    main()
