"""What every reward promises, checked for each name that a specification may begin with."""

import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gymnasium as gym
import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

import textgym  # noqa: F401  # registers the environments
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Episode, Instance
from textgym.metrics import METRICS
from textgym.registration import REGISTRY, make_env
from textgym.rewards import from_spec
from textgym.rewards.specs import known_rewards
from textgym.tasks.translation import TranslationTask
from textgym.tokenization import Tokenizer

TOKENIZER = Tokenizer.load()
TASK = TranslationTask()

# A specification of each, as a person would write it. {folder} is the test's own.
SPECS = {
    **{name: name for name in METRICS},
    "target": "target:rouge_l,name=close",
    "novelty": "novelty:2",
    "answer": "answer:last_line",
    "format": "format:sections=Summary|Next steps,outside=true",
    "grammar": "grammar:{folder}/greeting.lark,parser=lalr",
    "json_schema": "json_schema:{folder}/schema.json",
    "language": "language:de,among=en|fr",
    "regex": r"regex:(?si).*(fox|owl)+.*",
    "clip": "clip(repetition; low=-0.5; high=1)",
    "constraint": "constraint(repetition; at_least=-0.1)",
    "gate": "gate(keywords:fox; length:40; threshold=0.5)",
    "minimum": "minimum(length:40; repetition*2)",
    "normalize": "normalize(length:40; center=true; clip=5)",
    "product": "product(length:40; keywords:fox)",
    "redistribute": "redistribute(length:40; over=uniform)",
    "schedule": "schedule(length:40; start=1; end=0; over=1000; unit=tokens; shape=cosine)",
    "shaped": "shaped(keywords:fox; every=512)",
    "sum": "sum(length:40*0.5; keywords:fox)",
    "task-score": "task-score",
    "code": "code:{folder}/mine.py:one,timeout=5",
    "maths": "maths:last_line,plain=true",
    "unit_test": "python:{folder}/mine.py:checked",  # tests cannot be given in a specification
    "http": "http:{url}/score,low=0,high=1",
    "judge": "judge:{url}/v1,model=small",
    "classifier": "classifier:{folder}/classifier",
    "embedding": "embedding:{folder}/judge",
    "log_prob": "log_prob:{folder}/judge",
    "perplexity": "perplexity:{folder}/judge",
    "avoid": "avoid:the,fox",
    "budget": "budget:4,cost=0.1",
    "distinct": "distinct:2,window=8",
    "loops": "loops",
    "readability": "readability",
    "keywords": "keywords:the,red kite",
    "length": "length:min=2,max=12",
    "python": "python:{folder}/mine.py:vowels",
    "repetition": "repetition:n=2",
}

GARBAGE = [
    "",
    " ",
    "\n\n\t",
    "a",
    "the fox and the owl",
    "The fox. The fox. The fox. The fox. The fox.",
    "word " * 20_000,
    "x" * 100_000,
    "()[]{}<>*+?|^$\\" * 200,
    '{"a": [1, 2, {"b": null}]',
    "[" * 20_000,
    "9" * 5_000,
    "9**9**9**9",
    "🦊🌙 ñ ß 漢字 e\u0301 \u202eesrever \u200b",
    "\x00\x01\x1b[31m\r\n\x7f",
    "\ud800 lone \udfff",
    "\ufffd" * 50,
    "%s %d {0} {prompt} ${HOME} `id` <script>alert(1)</script> ' OR 1=1 --",
]


def episodes():
    instances = [
        Instance(drawn.prompt, drawn.target, drawn.data)
        for drawn in (TASK.sample(np.random.default_rng(seed)) for seed in range(2))
    ]
    return [Episode.written(instances[i % 2], text, TOKENIZER) for i, text in enumerate(GARBAGE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "mine.py").write_text(
        "def vowels(episodes):\n"
        "    return [sum(c in 'aeiou' for c in e.completion_text[:99]) / 99 for e in episodes]\n"
        "def one(episode):\n"
        "    return min(1.0, len(episode.completion_text) / 100)\n"
        "def checked():\n"
        "    from textgym.rewards.unit_test import UnitTest\n"
        "    return UnitTest(tests=['assert 1 + 1 == 2'], timeout=1.0)\n"
        "checked = checked()\n"
    )
    (folder / "schema.json").write_text(json.dumps({"type": "object", "required": ["a"]}))
    (folder / "greeting.lark").write_text('start: "hello" " " /[a-z]+/\n')
    save_models(folder)
    return folder


def save_models(folder):
    """A judge and a classifier, small and random, as Hugging Face files."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZER.backend,
        eos_token=TOKENIZER.eos_token,
        pad_token=TOKENIZER.eos_token,
    )
    torch.manual_seed(0)
    sizes = {"vocab_size": TOKENIZER.vocab_size, "pad_token_id": TOKENIZER.eos_token_id}
    gpt2 = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=256, **sizes)
    bert = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
        initializer_range=0.5,
        **sizes,
    )
    for model, name in (
        (GPT2LMHeadModel(gpt2), "judge"),
        (BertForSequenceClassification(bert), "classifier"),
    ):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


class Service(BaseHTTPRequestHandler):
    """Scores episodes by their length, and answers chats with such a score."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "episodes" in asked:
            said = {"rewards": [len(e["completion"]) % 7 / 7 for e in asked["episodes"]]}
        else:
            # The tags around the texts hold a hash of them: a stable number, as the score is.
            score = 1 + len(asked["messages"][-1]["content"]) % 9
            said = {"choices": [{"message": {"content": f"Fair. Score: {score}"}}]}
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(params=sorted(SPECS))
def reward(request, folder, url, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made, _ = from_spec(SPECS[request.param].replace("{folder}", str(folder)).replace("{url}", url))
    made.bind(TOKENIZER, TASK.score_batch)
    made.set_learning(False)
    yield made
    if hasattr(made, "close"):
        made.close()


def test_every_reward_is_here():
    assert set(SPECS) == set(known_rewards())


@pytest.mark.filterwarnings("ignore::textgym.errors.RewardWarning")
def test_garbage_is_data(reward):
    low, high = reward.range
    assert low < high
    batch = episodes()
    values = reward(batch)
    assert values.dtype == np.float32
    assert values.shape == (len(batch),)
    assert np.isfinite(values).all()
    assert low <= values.min()
    assert values.max() <= high
    alone = np.concatenate([reward([episode]) for episode in batch])
    np.testing.assert_allclose(values, alone, rtol=1e-5, atol=1e-6)
    assert reward([]).shape == (0,)


def test_it_can_be_pickled_and_its_state_comes_back(reward):
    other = pickle.loads(pickle.dumps(reward))
    other.set_state(pickle.loads(pickle.dumps(reward.get_state())))
    assert (other.name, other.range) == (reward.name, reward.range)
    if hasattr(other, "close"):
        other.close()


@pytest.mark.filterwarnings("ignore::textgym.errors.RewardWarning")
def test_the_same_single_batched_and_through_environments(reward):
    task = REGISTRY["textgym/Translation-v0"].task
    keywords = {"rewards": [(reward, 0.5)], "max_new_tokens": 6}
    envs: TokenVectorEnv = gym.make_vec(
        "textgym/Translation-v0",
        num_envs=3,
        vectorization_mode="vector_entry_point",
        autoreset_mode="SAME_STEP",
        **keywords,
    )
    envs.reset(seed=5)
    single = make_env(task, **keywords)
    single.reset(seed=5)
    rng = np.random.default_rng(0)
    total, of_single, records = np.zeros(3), 0.0, []
    over = False
    while len(records) < 6:
        actions = rng.integers(300, 1000, 3)
        _, rewards, terminated, _, infos = envs.step(actions)
        total += rewards
        if not over:
            _, paid, over, _, info = single.step(int(actions[0]))
            of_single += paid
        for row in np.flatnonzero(terminated):
            where = infos["final_info"]
            record = where["episode_record"][row]
            records.append(record)
            value = float(reward([record])[0])
            assert where["rewards"][reward.name][row] == pytest.approx(0.5 * value, abs=1e-6)
            expected = where["rewards"]["score"][row] + 0.5 * value
            assert total[row] == pytest.approx(expected, abs=1e-5)
            total[row] = 0.0
        if over:
            first = next(r for r in records if r == info["episode_record"])
            assert of_single == pytest.approx(
                info["rewards"]["score"] + 0.5 * float(reward([first])[0]), abs=1e-5
            )
