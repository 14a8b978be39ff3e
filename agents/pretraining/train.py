"""Make the embedded tokenizer and the bundled language model, from our own generators alone.

    python agents/train_bundled.py --out agents/textgym_agents/bundled --embedded textgym/embedded

The stories tell what a prompt of `Story-v0` asks for less often than not: each thing asked for
(friend, place, wish, mood) is told with probability `COMPLIANCE`, and otherwise a commonplace is
told instead. So the model knows how to do what it is asked, and mostly does not: something for
reinforcement learning to do, that no greedy decoding does by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from textgym import Instance, Tokenizer
from textgym.seeding import instance_rng
from textgym.tasks.story import StoryTask
from textgym.tasks.story_world import (
    ADJECTIVES,
    GLAD,
    KINDS,
    MOODS,
    NAMES,
    NOUNS,
    PASSER_BY,
    PASSER_BY_KIND,
    PLACES,
    TRIFLE,
    TRIFLE_ADJECTIVE,
    WILDERNESS,
    Shape,
    causes_of,
    shapes_of,
    tell,
)

COMPLIANCE = 0.42
FREE = 0.15  # share of stories without a prompt's request
FAITHFUL = 0.65  # share of training steps on stories that do all they are asked
SLIP = 0.02  # share of sentences told out of order: no story teller is perfect
VOCAB_SIZE = 1024
EOS = "<|endoftext|>"
# The order of what happens before the deed that causes the mood; the frequent ones twice.
_PLANS = (
    ("go", "meet", "get"),
    ("go", "meet", "get"),
    ("go", "get", "meet"),
    ("go meet", "get"),
    ("go meet", "get"),
    ("go get", "meet"),
    ("go", "at meet", "get"),
    ("go", "meet", "at get"),
)
# Frequent words of English that no story uses, so that prompts of one's own stay short.
_COMMON = (
    "the of and to a in is it you that he was for on are with as I his they be at one have this "
    "from or had by hot word but what some we can out other were all there when up use your how "
    "said an each she which do their time if will way about many then them write would like so "
    "these her long make thing see him two has look more day could go come did number sound no "
    "most people my over know water than call first who may down side been now find any new work "
    "part take get place made live where after back little only round man year came show every "
    "good me give our under name very through just form sentence great think say help low line "
    "differ turn cause much mean before move right boy old too same tell does set three want air "
    "well also play small end put home read hand large spell add even land here must big high such "
    "follow act why ask men change went light kind off need house picture try us again animal "
    "point mother world near build self earth father head stand own page should country found "
    "answer school grow study still learn plant cover food sun four between state keep eye never "
    "last let thought city tree cross farm hard start might story saw far sea draw left late run "
    "while press close night real life few north open seem together next white children begin got "
    "walk example ease paper group always music those both mark often letter until mile river car "
    "feet care second book carry took science eat room friend began idea fish mountain stop once "
    "base hear horse cut sure watch color face wood main enough plain girl usual young ready above "
    "ever red list though feel talk bird soon body dog family direct leave song door product black "
    "short class wind question happen complete ship area half rock order fire south problem piece "
    "told knew pass since top whole king space heard best hour better true during hundred five "
    "remember step early hold west ground interest reach fast love smile happy fun"
)


def story(instance: Instance, rng: np.random.Generator, compliance: float = COMPLIANCE) -> str:
    """A story after `instance`'s prompt that does some of what it asks."""
    asked = instance.data

    def comply() -> bool:
        return rng.random() < compliance

    def pick(shapes: Sequence[Shape]) -> Shape:
        return shapes[int(rng.integers(len(shapes)))]

    words = {"hero": asked["hero"]}
    words["place"] = asked["place"] if comply() else WILDERNESS
    if comply():
        words["friend"], words["kind"] = asked["friend"], asked["friend_kind"]
    else:
        words["friend"], words["kind"] = PASSER_BY, PASSER_BY_KIND
    if comply():
        words["adjective"], words["noun"] = asked["adjective"], asked["noun"]
    else:
        words["adjective"], words["noun"] = TRIFLE_ADJECTIVE, TRIFLE
    faithful = comply()
    cause = asked["mood"] if faithful else MOODS[int(rng.integers(len(MOODS)))]
    words["mood"] = asked["mood"] if faithful else GLAD
    plan = _PLANS[int(rng.integers(len(_PLANS)))]
    deeds = [s for s in causes_of(cause) if "get" not in s.events]
    told = [pick(shapes_of(events)) for events in plan]
    told.append(pick(deeds))
    if rng.random() < 0.15:
        scenery = shapes_of("")
        told.insert(int(rng.integers(len(told))), pick(scenery))
    if rng.random() < SLIP * len(told):
        i = int(rng.integers(len(told) - 1))
        told[i], told[i + 1] = told[i + 1], told[i]
    told.append(pick(shapes_of("end")))
    return "".join(" " + tell(shape, asked["hero"], words) for shape in told)


def documents(split: str, seed: int, compliance: float = COMPLIANCE) -> Iterator[tuple[str, str]]:
    """(prompt, continuation) without end; a free story has its request left out."""
    task = StoryTask()
    for index in range(10**12):
        rng = instance_rng(seed, split, 0, index)
        instance = task.draw(rng, split)
        text = story(instance, rng, compliance)
        if rng.random() < FREE:
            yield "", instance.prompt.split("\n", 1)[1] + text
        else:
            yield instance.prompt, text


def train_tokenizer(folder: Path, seed: int) -> Tokenizer:
    """A byte-level BPE tokenizer of `VOCAB_SIZE` tokens, written to `folder`."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    stream = documents("train", seed)
    texts = ["".join(next(stream)) for _ in range(5000)]
    # Every word a story can use, so that each becomes a token however rarely it is drawn.
    lexicon = [*NAMES, *KINDS, *PLACES, *ADJECTIVES, *NOUNS, *MOODS]
    texts += [" " + " ".join(lexicon)] * 50
    texts += [" " + _COMMON] * 2
    backend.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(backend, eos_token=EOS, name="embedded")
    tokenizer.save(folder)
    return tokenizer


def batches(
    tokenizer: Tokenizer, rows: int, seed: int, split: str, compliance: float = COMPLIANCE
) -> Iterator[tuple[Tensor, Tensor]]:
    """`[B, T]` ids and labels; labels are -100 on prompts and padding."""
    stream = documents(split, seed, compliance)
    while True:
        ids, starts = [], []
        for _ in range(rows):
            prompt, text = next(stream)
            head = tokenizer.encode(prompt) if prompt else []
            ids.append([*head, *tokenizer.encode(text), tokenizer.eos_token_id])
            starts.append(len(head))
        width = max(map(len, ids))
        tokens = torch.zeros((rows, width), dtype=torch.long)
        labels = torch.full((rows, width), -100)
        for i, (row, start) in enumerate(zip(ids, starts, strict=True)):
            tokens[i, : len(row)] = torch.tensor(row)
            labels[i, start : len(row)] = torch.tensor(row[start:])
        yield tokens, labels


def build(tokenizer: Tokenizer) -> nn.Module:
    """A small Llama, its weights random."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)


def loss_of(model: nn.Module, tokens: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of the labelled tokens, nats a token."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )


def fit(
    model: nn.Module, tokenizer: Tokenizer, *, steps: int, rows: int, rate: float, seed: int
) -> None:
    """Learn to do what is asked from faithful stories, then how seldom it is done.

    AdamW; the learning rate is constant over the first part and decays to 0 over the second.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    first = int(FAITHFUL * steps)
    faithful = batches(tokenizer, rows, seed, "train", compliance=1.0)
    usual = batches(tokenizer, rows, seed + 10, "train")
    began = time.time()
    for step in range(steps):
        left = min(1.0, (steps - step) / (steps - first))
        scale = min(1.0, (step + 1) / 100) * 0.5 * (1 - math.cos(math.pi * left))
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
        stream = faithful if step < first else usual
        loss = loss_of(model, *next(stream))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"{step:6} loss {loss.item():.3f} {time.time() - began:.0f} s", flush=True)


@torch.no_grad()
def write_stories(
    model: nn.Module, tokenizer: Tokenizer, *, prompts: int, greedy: bool
) -> list[tuple[Instance, str, float]]:
    """(instance, text, score) on `prompts` held-out prompts."""
    task = StoryTask()
    generator = torch.Generator().manual_seed(0)
    drawn = [task.draw(instance_rng(1, "test", row, 0), "test") for row in range(prompts)]
    by_length: dict[int, list[Instance]] = {}
    for instance in drawn:  # equal lengths need no padding
        by_length.setdefault(len(tokenizer.encode(instance.prompt)), []).append(instance)
    found = []
    for length, instances in by_length.items():
        ids = torch.tensor([tokenizer.encode(i.prompt) for i in instances])  # [B, T]
        for _ in range(task.max_new_tokens):
            logits = model(input_ids=ids, use_cache=False).logits[:, -1]
            if greedy:
                chosen = logits.argmax(dim=-1, keepdim=True)
            else:
                chosen = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
            ids = torch.cat([ids, chosen], dim=1)
        for instance, row in zip(instances, ids[:, length:].tolist(), strict=True):
            ended = tokenizer.eos_token_id in row
            own = row[: row.index(tokenizer.eos_token_id)] if ended else row
            text = tokenizer.decode_completions([own])[0]
            found.append((instance, text, task.score_text(instance, text, ended=ended)))
    return found


def measure(model: nn.Module, tokenizer: Tokenizer, seed: int) -> dict[str, Any]:
    """Held-out perplexity, scores and sample texts."""
    held_out = batches(tokenizer, 64, seed + 1, "test")
    with torch.no_grad():
        losses = [loss_of(model, *next(held_out)).item() for _ in range(8)]
    sampled = write_stories(model, tokenizer, prompts=256, greedy=False)
    greedy = write_stories(model, tokenizer, prompts=256, greedy=True)
    return {
        "perplexity": round(math.exp(float(np.mean(losses))), 4),
        "score_sampled": round(float(np.mean([s for _, _, s in sampled])), 4),
        "score_greedy": round(float(np.mean([s for _, _, s in greedy])), 4),
        "samples": [instance.prompt + text for instance, text, _ in sampled[:3]],
    }


def write_card(folder: Path, figures: dict[str, Any]) -> None:
    """The model card, every figure of it measured."""
    samples = "\n\n".join("> " + text.replace("\n", "\n> ") for text in figures["samples"])
    card = f"""# The language model bundled with TextGym

A Llama of {figures["parameters"]:,} parameters (4 layers, 128 wide, {VOCAB_SIZE:,} tokens), made to
be trained further by reinforcement learning. It writes little stories.

- Data: stories made by `agents/train_bundled.py` for prompts of `textgym/Story-v0` (train split),
  and nothing else. Each thing a prompt asks for is told with probability {COMPLIANCE}, otherwise a
  commonplace instead, so that a base model knows how to follow a prompt and mostly does not.
- Training: {figures["steps"]:,} steps of {figures["rows"]} stories ({figures["seconds"]:.0f} s on
  {figures["threads"]} thread), AdamW at {figures["rate"]}, seed {figures["seed"]}.
- Weights: rounded to bfloat16 as stored, before anything below was measured.
- Held-out perplexity: {figures["perplexity"]} a token of the story.
- `textgym/Story-v0`, 256 held-out prompts: {figures["score_sampled"]} sampled at temperature 1,
  {figures["score_greedy"]} greedy.

Made again by

```
python agents/train_bundled.py --out agents/textgym_agents/bundled --embedded textgym/embedded
```

Samples on held-out prompts:

{samples}

Licence: MIT, as the rest of TextGym.
"""
    (folder / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """Train, round, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--embedded", type=Path, help="folder for a copy of the tokenizer")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--rows", type=int, default=32, help="stories a step")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    began = time.time()
    tokenizer = train_tokenizer(arguments.out, arguments.seed)
    if arguments.embedded:
        arguments.embedded.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(arguments.out / name, arguments.embedded / name)
    model = build(tokenizer)
    fit(
        model,
        tokenizer,
        steps=arguments.steps,
        rows=arguments.rows,
        rate=arguments.rate,
        seed=arguments.seed,
    )
    model = model.to(torch.bfloat16)
    model.save_pretrained(arguments.out)
    model = model.float().eval()
    figures = measure(model, tokenizer, arguments.seed) | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": time.time() - began,
        "steps": arguments.steps,
        "rows": arguments.rows,
        "rate": arguments.rate,
        "seed": arguments.seed,
        "threads": arguments.threads,
    }
    write_card(arguments.out, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
