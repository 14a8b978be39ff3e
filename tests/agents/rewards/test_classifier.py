"""`Classifier` against the pipeline of `transformers`, and by hand."""

import copy
import pickle

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from textgym import Episode, Instance, Turn
from textgym_agents.rewards.classifier import Classifier, label_index

WORDS = ["the", "film", "is", "a", "delight", "bore", "not", "very", "!", ",", "zqx", "12", "é"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789!?.,"


def bert_tokenizer():
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{c}" for c in LETTERS)]
    pieces += [word for word in WORDS if word not in pieces]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip


def bert(folder, **config):
    """A random BERT, saved with a tokenizer file."""
    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=64, initializer_range=0.5, **config,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory):
    names = {0: "negative", 1: "positive", 2: "mixed"}
    return bert(tmp_path_factory.mktemp("sentiment"), id2label=names)


@pytest.fixture(scope="module")
def preference(tmp_path_factory):
    return bert(tmp_path_factory.mktemp("preference"), num_labels=1)


@pytest.fixture(scope="module")
def toxicity(tmp_path_factory):
    names = {0: "toxic", 1: "insult"}
    kind = "multi_label_classification"
    return bert(tmp_path_factory.mktemp("toxicity"), id2label=names, problem_type=kind)


def texts(count=100):
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(count)]


def episode(completion, prompt="p", turns=()):
    one = np.ones(1, bool)
    turns = turns or (Turn("agent", completion),)
    return Episode(Instance(prompt), np.zeros(1, np.int64), one, completion, turns, "stop")


def by_pipeline(folder, asked, label):
    judge = pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    return [
        next(one["score"] for one in scores if one["label"] == label) for scores in judge(asked)
    ]


@pytest.mark.parametrize("label", ["negative", "positive", "mixed"])
def test_it_agrees_with_the_pipeline(sentiment, label):
    asked = texts()
    values = Classifier(str(sentiment), label=label)([episode(text) for text in asked])
    assert values.dtype == np.float32
    expected = by_pipeline(sentiment, asked, label)
    assert values == pytest.approx(expected, abs=1e-5)
    assert np.ptp(expected) > 0.5


@pytest.mark.parametrize(("which", "label"), [("preference", "LABEL_0"), ("toxicity", "toxic")])
def test_outputs_that_do_not_exclude_each_other(which, label, request):
    folder, asked = request.getfixturevalue(which), texts()
    values = Classifier(folder, label=label)([episode(text) for text in asked])
    assert values == pytest.approx(by_pipeline(folder, asked, label), abs=1e-5)


@pytest.mark.parametrize("which", ["sentiment", "preference", "toxicity"])
def test_outputs_of_one_model(which, request):
    folder, asked = request.getfixturevalue(which), [episode(text) for text in texts(20)]
    made = {o: Classifier(folder, output=o) for o in ("probability", "log_probability", "logit")}
    values = {output: reward(asked) for output, reward in made.items()}
    assert np.exp(values["log_probability"]) == pytest.approx(values["probability"], abs=1e-6)
    for output, reward in made.items():
        assert (values[output] >= reward.range[0]).all()
        assert (values[output] <= reward.range[1]).all()
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    ids = bert_tokenizer()(asked[0].completion_text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**ids).logits[0]
    index = made["logit"].label
    assert values["logit"][0] == pytest.approx(float(logits[index]), abs=1e-5)


def test_labels():
    names = {0: "bad", 1: "5", 2: "POS"}
    assert label_index(names, None) == 2
    assert label_index({0: "no", 1: "yes"}, None) == 1
    assert label_index(names, "5") == label_index(names, 5) == 1  # a name before an index
    assert label_index(names, "0") == label_index(names, 0) == 0
    for wrong in ("worse", 3, -1):
        with pytest.raises(ValueError, match=r"no label .* bad"):
            label_index(names, wrong)


def test_a_specification(sentiment):
    reward = Classifier.from_arguments(f"{sentiment},label=negative,output=logit,max_tokens=32")
    assert (reward.label, reward.output) == (0, "logit")
    reward = Classifier.from_arguments(f"{sentiment},label=2,text=prompt+completion")
    assert (reward.label, reward.text) == (2, "prompt+completion")


def test_batched_is_single_and_a_copy_is_the_same(sentiment):
    asked = [episode(text) for text in texts(30)]
    reward = Classifier(sentiment)
    batched = reward(asked)
    assert batched == pytest.approx([Classifier(sentiment)([e])[0] for e in asked], abs=1e-6)
    assert reward(asked[::-1]).tolist() == batched[::-1].tolist()
    for other in (copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))):
        assert other(asked).tolist() == batched.tolist()
    assert reward.value(asked[0].completion_text) == pytest.approx(batched[0], abs=1e-6)
    assert reward([]).shape == (0,)


def test_what_is_read(sentiment):
    turns = (Turn("agent", "a bore"), Turn("task", " not "), Turn("agent", "very"))
    one = episode("a bore\nvery", "the film is ", turns)
    alone = Classifier(sentiment)
    for text, read in (
        ("completion", "a bore\nvery"),
        ("prompt+completion", "the film is a bore\nvery"),
        ("context", "the film is a bore not very"),
    ):
        value = Classifier(sentiment, text=text)([one])[0]
        assert value == pytest.approx(alone.value(read), abs=1e-6)


def test_of_a_long_text_the_end_is_not_read_and_of_a_prompt_the_beginning(sentiment):
    words = texts(200)
    long = " ".join(words)
    reward = Classifier(sentiment, max_tokens=12)
    few = bert_tokenizer().tokenize(long)[:10]
    assert all(not piece.startswith("##") for piece in few)
    assert reward.value(long) == reward.value(long + " delight")
    assert reward.value(long) == pytest.approx(Classifier(sentiment).value(" ".join(few)), abs=1e-6)
    both = Classifier(sentiment, max_tokens=12, text="prompt+completion")
    # Ten tokens besides two special ones: the completion leaves eight of them to the prompt.
    prompt = "film film film film film the the the the the the the the"
    assert both.value(" a delight", prompt) == pytest.approx(
        reward.value("the the the the the the the the a delight"), abs=1e-6
    )
    # The prompt keeps half of the 12, the completion loses its end.
    assert both.value(" a" + " delight" * 30, prompt) == pytest.approx(
        reward.value("the the the the the the a delight delight delight"), abs=1e-6
    )


def test_garbage(sentiment, preference, garbage):
    for folder in (sentiment, preference):
        for text in ("completion", "prompt+completion"):
            reward = Classifier(folder, text=text)
            values = reward([episode(t, prompt) for t in garbage for prompt in ("", t)])
            assert np.isfinite(values).all()
            assert ((values >= 0.0) & (values <= 1.0)).all()


def gpt2(pad):
    backend = tokenizers.Tokenizer(models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.train_from_iterator([" ".join(WORDS)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=300, n_embd=32, n_layer=1, n_head=2, n_positions=64, initializer_range=0.5,
        num_labels=1, pad_token_id=pad,
    )  # fmt: skip
    return GPT2ForSequenceClassification(config).eval(), tokenizer


@pytest.mark.parametrize("pad", [None, 0])
def test_a_causal_model_with_and_without_padding(pad, garbage):
    model, tokenizer = gpt2(pad)
    reward = Classifier((model, tokenizer), output="logit")
    asked = texts(20)
    values = reward([episode(text) for text in asked])
    for text, value in zip(asked, values, strict=True):
        with torch.no_grad():
            logit = model(torch.tensor([tokenizer(text).input_ids])).logits.item()
        assert value == pytest.approx(logit, abs=1e-4)
    assert np.isfinite(reward([episode(text) for text in garbage])).all()


def test_what_is_no_classifier(tmp_path, encoder, sentiment):
    with pytest.raises(ValueError, match="is no classifier"):
        Classifier(encoder)
    for part in encoder:
        part.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"BertModel, which is no classifier.*fit-reward --base"):
        Classifier(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Classifier(str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"no label 'happy'.*positive"):
        Classifier(sentiment, label="happy")
    with pytest.raises(ValueError, match="`output` cannot be 'odds'"):
        Classifier(sentiment, output="odds")
    with pytest.raises(ValueError, match="`text` cannot be 'prompt'"):
        Classifier(sentiment, text="prompt")
    with pytest.raises(ValueError, match="`max_tokens`"):
        Classifier(sentiment, max_tokens=1)
