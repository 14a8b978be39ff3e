"""Encoder-decoder models: hidden states and incremental decoding are the model's own, exactly."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

from textgym import Tokenizer
from textgym_agents.lm import (
    CausalLM,
    ModelSpec,
    Seq2SeqLM,
    SlotCache,
    build_language_model,
    load_model,
    load_tokenizer,
)
from textgym_agents.lm.build import closing_tokens
from textgym_agents.lm.imitation import IGNORED, imitation_loss

V, PROMPT, NEW = 61, 14, 10
C = PROMPT + NEW
EOS, PAD = 2, 60
TOKENS = {"eos_token_id": EOS, "pad_token_id": PAD, "decoder_start_token_id": PAD}
LAYERS = TOKENS | {
    "bos_token_id": 0,
    "vocab_size": V,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    "forced_eos_token_id": None,
}
T5 = TOKENS | {
    "vocab_size": V,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
}


def t5(**changes):
    return T5ForConditionalGeneration(T5Config(**T5 | changes))


def bart(**changes):
    return BartForConditionalGeneration(BartConfig(**LAYERS | changes))


def marian(**changes):
    return MarianMTModel(MarianConfig(**LAYERS | changes))


def eager(make):
    def made(**changes):
        model = make(**changes)
        model.set_attn_implementation("eager")
        return model

    return made


MODELS = {
    "t5": t5,
    "t5-scaled": lambda **changes: t5(scale_decoder_outputs=True, **changes),
    "bart": bart,
    "marian": marian,
    "t5-eager": eager(t5),
    "bart-eager": eager(bart),
}


def make_model(make, scale=2.0, **changes):
    torch.manual_seed(0)
    model = make(**changes).eval()
    with torch.no_grad():  # the usual initialisation is so small that mistakes would not show
        for parameter in model.parameters():
            if parameter.requires_grad:  # Marian's positions are a formula
                parameter.mul_(scale)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    return model


def make_lm(name, *, scale=2.0, **keywords):
    # T5 starts as large as it is to be.
    model = make_model(MODELS[name], 0.5 if name.startswith("t5") else scale)
    return Seq2SeqLM(model, V, C, max_new_tokens=NEW, **keywords)


@torch.no_grad()
def exact_log_probs(lm, prompts, completions):
    """`[B, V]`, one row at a time, by the model itself, as Hugging Face's users would."""
    found = []
    for prompt, completion in zip(prompts, completions, strict=True):
        logits = lm.model(
            input_ids=torch.tensor([[*prompt, *lm.closing]]),
            decoder_input_ids=torch.tensor([[PAD, *completion]]),
            use_cache=False,
        ).logits
        found.append(logits[0, -1, :V])
    return torch.stack(found).float().log_softmax(-1)


def padded(prompts, completions):
    """Contexts `[B, C]`, lengths and prompt lengths `[B]`."""
    ids = torch.zeros((len(prompts), C), dtype=torch.int64)
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids[i, : len(prompt) + len(completion)] = torch.tensor(prompt + completion)
    starts = np.array([len(p) for p in prompts])
    return ids, starts + np.array([len(c) for c in completions]), starts


def assert_exact(lm, slots, prompts, completions):
    ids, lengths, starts = padded(prompts, completions)
    expected = exact_log_probs(lm, prompts, completions)
    for reader in (slots, lm):
        hidden = reader.last_hidden(ids, lengths, starts)
        assert (lm.head.logits(hidden).log_softmax(-1) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_cached_equals_uncached_equals_the_model(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        lm = make_lm(name, closing=() if name == "t5" else (EOS,))
    assert lm.incremental
    rng = np.random.default_rng(0)

    def fresh():
        return rng.integers(0, V, rng.integers(1, PROMPT + 1)).tolist()

    rows = 5
    slots = lm.slots(rows, C)
    prompts, completions = [fresh() for _ in range(rows)], [[] for _ in range(rows)]
    for _ in range(40):
        assert_exact(lm, slots, prompts, completions)
        for i, completion in enumerate(completions):
            event = rng.random()
            if len(completion) > NEW - 4 or event < 0.05:  # another episode
                prompts[i], completions[i] = fresh(), []
            elif event < 0.1:  # another episode in its middle
                prompts[i] = fresh()
            elif event < 0.15:  # several tokens at once
                completions[i] = completion + rng.integers(0, V, 3).tolist()
            elif event < 0.2:  # other tokens
                completions[i] = rng.integers(0, V, len(completion)).tolist()
            elif event < 0.25:  # back
                completions[i] = completion[: rng.integers(0, len(completion) + 1)]
            elif event < 0.9:
                completions[i] = [*completion, int(rng.integers(V))]
        if rng.random() < 0.05:
            slots.clear()


@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_rows_in_lockstep_to_the_last_token(name):
    lm = make_lm(name)
    slots, rng = lm.slots(4, C), np.random.default_rng(0)
    for _ in range(3):  # the columns are used up and moved back
        prompts = [rng.integers(0, V, PROMPT - i).tolist() for i in range(4)]
        completions = [[] for _ in prompts]
        while len(completions[0]) < NEW:
            assert_exact(lm, slots, prompts, completions)
            completions = [[*c, int(rng.integers(V))] for c in completions]


@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_a_prompt_is_encoded_once_and_a_step_feeds_one_token(name):
    lm = make_lm(name)
    encoded, fed = [], []
    encode, decode_next = lm.encode, lm.decode_next
    lm.encode = lambda tokens, there: (encoded.append(len(tokens)), encode(tokens, there))[1]
    lm.decode_next = lambda tokens, positions, **k: (
        fed.append(tuple(tokens.shape)),
        decode_next(tokens, positions, **k),
    )[1]
    slots, rng = lm.slots(4, C), np.random.default_rng(0)
    prompts, completions = [[5, 6, 7 + i] for i in range(4)], [[], [], [], []]
    for step in range(8):
        if step == 5:
            prompts[2], completions[2] = [9], []
        ids, lengths, starts = padded(prompts, completions)
        slots.last_hidden(ids, lengths, starts)
        completions = [[*c, int(rng.integers(V))] for c in completions]
    assert encoded == [4, 1]
    assert fed == [(4,)] * 7
    slots.last_hidden(ids, lengths, starts)  # nothing new
    assert (encoded, len(fed)) == ([4, 1], 7)


@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_greedy_decoding_is_that_of_generate(name):
    lm = make_lm(name, closing=(EOS,))
    rng = np.random.default_rng(1)
    prompts = [rng.integers(3, V - 1, n).tolist() for n in (3, 7, PROMPT)]
    slots, completions = lm.slots(3, C), [[], [], []]
    for _ in range(NEW):
        hidden = slots.last_hidden(*padded(prompts, completions))
        chosen = lm.head.logits(hidden).argmax(-1).tolist()
        completions = [[*c, t] for c, t in zip(completions, chosen, strict=True)]
    for prompt, completion in zip(prompts, completions, strict=True):
        with torch.no_grad():
            # Its own cache has one depth for both halves, and our T5's differ.
            out = lm.model.generate(
                torch.tensor([[*prompt, EOS]]),
                do_sample=False,
                num_beams=1,
                max_new_tokens=NEW,
                use_cache=False,
            )
        theirs = out[0, 1:].tolist()  # after the start token
        ends = completion.index(EOS) + 1 if EOS in completion else NEW
        assert completion[:ends] == theirs


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_gathered_states_are_those_of_each_context_alone(name):
    lm = make_lm(name)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, V, n).tolist() for n in (2, 9, 5)]
    completions = [rng.integers(0, V, n).tolist() for n in (6, 3, 0)]
    ids, lengths, starts = padded(prompts, completions)
    width = int(lengths.max())
    parts = [(i, k) for i, c in enumerate(completions) for k in range(len(c) + 1)]
    index = torch.tensor([i * width + starts[i] - 1 + k for i, k in parts])
    hidden = lm.states(ids[:, :width], index, torch.from_numpy(starts))
    expected = exact_log_probs(
        lm, [prompts[i] for i, _ in parts], [completions[i][:k] for i, k in parts]
    )
    assert (lm.head.logits(hidden).log_softmax(-1) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["t5", "marian"])
def test_first_ratio_is_one_for_models_configured_with_dropout(name):
    rates = {"dropout_rate": 0.4} if name == "t5" else {"dropout": 0.4, "attention_dropout": 0.3, "activation_dropout": 0.3, "decoder_layerdrop": 0.5}  # fmt: skip  # noqa: E501
    model = make_model(MODELS[name], 0.5, **rates)
    lm = Seq2SeqLM(model, V, C, max_new_tokens=NEW).train()
    ids, lengths, starts = padded([[4, 5, 6], [7]], [[8, 9], [10, 11, 12]])
    first = lm.last_hidden(ids, lengths, starts)
    assert torch.equal(first, lm.last_hidden(ids, lengths, starts))
    assert all(getattr(lm.model.config, name) == 0.0 for name in rates)


def test_a_reply_in_mid_episode_is_refused():
    lm = make_lm("t5")
    slots = lm.slots(1, C)
    slots.last_hidden(*padded([[4, 5]], [[7]]))
    replied = [4, 5, 7, 8, 9, 9]  # the agent's 8, then a reply of 9 9
    ids, lengths, _ = padded([replied], [[]])
    with pytest.raises(ValueError, match="read one prompt an episode"):
        slots.last_hidden(ids, lengths, lengths - 2)


def test_where_the_prompt_ends_is_part_of_the_context():
    lm = make_lm("t5")
    slots = lm.slots(1, C)
    for prompt, completion in (
        ([4, 5], [7]),
        ([4, 5, 7, 8, 9, 9], []),  # another episode; its prompt begins like the last context
        ([4, 5, 7], [8, 9, 9]),  # the same tokens
        ([4, 5, 7], [8, 9, 9]),
    ):
        assert_exact(lm, slots, [prompt], [completion])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not say what its decoder starts with"):
        Seq2SeqLM(make_model(t5, decoder_start_token_id=None), V, C, max_new_tokens=NEW)
    with pytest.raises(ValueError, match="32 positions, but prompts can be 40"):
        Seq2SeqLM(make_model(bart), V, 50, max_new_tokens=10)
    with pytest.raises(ValueError, match="32 positions, but completions can be 40"):
        Seq2SeqLM(make_model(bart), V, 50, max_new_tokens=40)
    with pytest.raises(ValueError, match="61 token embeddings"):
        Seq2SeqLM(make_model(t5), V + 1, C, max_new_tokens=NEW)
    with pytest.raises(ValueError, match="no `remaining`"):
        build_language_model(make_model(t5), V, C)
    with pytest.raises(ValueError, match="here a causal one is needed"):
        CausalLM(make_model(t5), V, C)
    lm = make_lm("t5")
    with pytest.raises(ValueError, match="Take a causal model"):
        SlotCache(lm, 2, C)
    with pytest.raises(ValueError, match="Take a causal model"):
        lm.hidden_states(torch.zeros((1, 4), dtype=torch.int64))
    with pytest.raises(ValueError, match="needs `prompt_lengths`"):
        lm.states(torch.zeros((1, 4), dtype=torch.int64), torch.tensor([3]))


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_where_decoding_is_not_exact_whole_contexts_are_read(monkeypatch, value):
    def wrong(self, tokens, *args, **keywords):
        return torch.full((len(tokens), 16), value)

    monkeypatch.setattr(Seq2SeqLM, "decode_next", wrong)
    with pytest.warns(UserWarning, match="incremental decoding is not exact"):
        lm = make_lm("t5")
    assert not lm.incremental


@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_lora_in_an_encoder_decoder_model(name):
    model = make_model(MODELS[name], 0.5)
    lm = build_language_model(model, V, C, max_new_tokens=NEW, lora={"r": 2})
    assert lm.incremental
    assert {"lora_A" in n or "lora_B" in n for n, p in lm.named_parameters() if p.requires_grad} == {True}  # fmt: skip  # noqa: E501
    if name == "marian":  # peft does not know it: all linear layers, the head excepted
        assert any("fc1" in n for n, p in lm.named_parameters() if p.requires_grad)
    assert type(lm.adapter.merged()) is type(model)


def test_imitation_loss_is_that_of_hugging_face():
    lm = make_lm("t5", closing=(EOS,))
    prompts, completions = [[4, 5, 6], [7]], [[8, 9], [10, 11, 12]]
    ids, lengths, starts = padded(prompts, completions)
    columns = torch.arange(C)
    own = (columns >= torch.from_numpy(starts)[:, None]) & (
        columns < torch.from_numpy(lengths)[:, None]
    )
    labels = ids.where(own, IGNORED)
    with torch.no_grad():
        loss = imitation_loss(lm, ids, labels)
        total = 0.0
        for prompt, completion in zip(prompts, completions, strict=True):
            out = lm.model(
                input_ids=torch.tensor([[*prompt, EOS]]), labels=torch.tensor([completion])
            )
            total += float(out.loss) * len(completion)
    assert float(loss) == pytest.approx(total / 5, rel=1e-5)
    labels[0, 7] = 3  # a second turn
    with pytest.raises(ValueError, match="read one prompt an episode"):
        imitation_loss(lm, ids, labels)


# ---------------------------------------------------------------------- loading
def word_tokenizer(template):
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="b"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [("<s>", 1), ("</s>", 2)]
    if template:
        backend.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=special
        )
    return Tokenizer(backend, eos_token="</s>", name="words")


@pytest.mark.parametrize(
    ("template", "closing"), [("", ()), ("$A </s>", (2,)), ("<s> $A </s>", (2,)), ("<s> $A", ())]
)
def test_the_encoder_reads_what_the_tokenizer_makes_of_a_text(template, closing):
    tokenizer = word_tokenizer(template)
    assert closing_tokens(tokenizer) == closing
    # The environment's prompt, and what closes it, are the tokenizer's own encoding.
    own = tokenizer.backend.encode("a b").ids
    assert [*tokenizer.encode("a b"), *closing] == own


def test_sources_are_closed_and_padded():
    lm = make_lm("t5", closing=(EOS,))
    ids, _, starts = padded([[4, 5, 6], [7]], [[8], [9, 10]])
    tokens, there = lm.sources(ids, torch.from_numpy(starts))
    assert tokens.tolist() == [[4, 5, 6, EOS], [7, EOS, 0, 0]]
    assert there.tolist() == [[True] * 4, [True, True, False, False]]
    assert lm.targets(ids, torch.from_numpy(starts), 3).tolist() == [[PAD, 8, 0], [PAD, 9, 10]]


@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_loading_from_a_folder_and_from_a_specification(name, tmp_path):
    model = make_model(MODELS[name])
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is type(model)
    spec = ModelSpec.of(model, None)
    built, _ = spec.build()
    assert type(built) is type(model)
    built.load_state_dict(model.state_dict())
    ids = torch.tensor([[4, 5, 6]])
    with torch.no_grad():
        expected = model(input_ids=ids, decoder_input_ids=ids).logits
        for other in (loaded.eval(), built.eval()):
            logits = other(input_ids=ids, decoder_input_ids=ids).logits
            assert torch.allclose(logits, expected, atol=1e-6)
    assert isinstance(AutoModelForSeq2SeqLM.from_pretrained(tmp_path), type(model))


@pytest.mark.parametrize("file", ["spiece.model", "source.spm"])
def test_a_tokenizer_without_tokenizer_json(tmp_path, file):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    (tmp_path / file).write_bytes(b"pieces")
    with pytest.raises(ValueError, match=rf"only {file} and no tokenizer\.json") as raised:
        load_tokenizer(tmp_path)
    assert "\n" not in str(raised.value)
