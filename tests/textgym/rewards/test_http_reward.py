"""`HTTP` against a real server, and how its specification is read."""

import asyncio
import json
import pickle
import time
import warnings

import numpy as np
import pytest

from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Episode, Instance, Turn
from textgym.errors import RewardWarning
from textgym.rewards.http_reward import HTTP, at_pointer

pytest.importorskip("httpx", reason="httpx is not installed")


def episode(text, target="t", reason="stop"):
    ids = np.arange(3)
    return Episode(Instance("p", target), ids, ids > 0, text, (Turn("agent", text),), reason)


def ok(value):
    return 200, {}, json.dumps(value).encode()


def judged(text):
    return len(text) % 11 / 10


def score(_, body):
    """What the reward's own service would do: a tenth for each character."""
    if "episodes" not in body:
        return ok({"reward": judged(body["completion"])})
    return ok({"rewards": [judged(e["completion"]) for e in body["episodes"]]})


def http(url, **options):
    return HTTP(url, **({"request_timeout": 5.0, "retries": 0} | options))


@pytest.mark.parametrize("batched", [True, False])
def test_rewards_are_the_services(serving, batched):
    texts = ["", "a", "abc", "a" * 10]
    with serving(score) as server:
        reward = http(server.url, batched=batched, batch_size=3)
        values = reward([episode(text) for text in texts])
        assert values.dtype == np.float32
        assert values.tolist() == np.float32([0, 0.1, 0.3, 1]).tolist()
        assert [reward([episode(text)])[0] for text in texts] == values.tolist()
        assert len(server.requests) == (2 if batched else 4) + 4
        assert reward([]).shape == (0,)
        assert reward.figures()["requests"] == len(server.requests)
        reward.close()


@pytest.mark.parametrize("batched", [True, False])
def test_what_is_sent(serving, batched):
    with serving(score) as server:
        http(server.url, batched=batched)([episode("c", None, "length")])
        sent = {"prompt": "p", "completion": "c", "target": None, "finish_reason": "length"}
        assert server.requests[0][2] == ({"episodes": [sent]} if batched else sent)


def test_any_text_can_be_sent(serving):
    texts = ["\0\x1b", "\ud800 \udc00", "a" * 1_000_000, "fox" * 1000, "🦊é\ufffd", '"},{"', "\n"]
    with serving(score) as server:
        reward = http(server.url, max_chars=5000)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values = reward([episode(text) for text in texts])
        assert time.process_time() - start < 2
        assert values.tolist() == np.float32([judged(t[:5000]) for t in texts]).tolist()
        sent = [e["completion"] for e in server.requests[0][2]["episodes"]]
        assert sent[1] == "\ufffd \ufffd"
        assert len(sent[2]) == 5000
        assert sent[4:] == texts[4:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"rewards": [0.5, NaN, 0.25]}', "from 0 to 1, got nan"),
        (b'{"rewards": [0.5, Infinity, 0.25]}', "got inf"),
        (b'{"rewards": [0.5, 1.01, 0.25]}', "got 1.01"),
        (b'{"rewards": [0.5, -1, 0.25]}', "got -1"),
        (b'{"rewards": [0.5, "0.5", 0.25]}', "got '0.5'"),
        (b'{"rewards": [0.5, null, 0.25]}', "got None"),
        (b'{"rewards": [0.5, true, 0.25]}', "got True"),
        (b'{"rewards": [0.5, [1], 0.25]}', r"got \[1\]"),
        (b'{"rewards": [0.5, 1' + b"0" * 400 + b", 0.25]}", "got 'a huge int'"),
    ],
)
def test_one_bad_reward_fails_one_episode(serving, data, reason):
    with serving(lambda *_: (200, {}, data)) as server:
        reward = http(server.url, fallback=-0.5)
        with pytest.warns(
            RewardWarning, match=f"`http` .*'b'.*{server.url} answered 200.*{reason}"
        ):
            values = reward([episode("a"), episode("b"), episode("c")])
        assert values.tolist() == [0.5, -0.5, 0.25]
        assert reward.failures == reward.figures()["failures"] == 1
        assert reward.range == (-0.5, 1.0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, {}, b'{"rewards": [0.5]}'), "list of 3 rewards at 'rewards', got a list of 1"),
        ((200, {}, b'{"rewards": 0.5}'), "got float"),
        ((200, {}, b'{"reward": [1, 1, 1]}'), "nothing at 'rewards'"),
        ((200, {}, b"[1, 1, 1]"), "nothing at 'rewards'"),
        ((200, {}, b"null"), "nothing at 'rewards'"),
        ((200, {}, b"<html>"), "'<html>', which is not JSON"),
        ((200, {}, b"[" * 100_000), "not JSON"),
        ((200, {}, b" " * 2_000_000), "more than 1000000 bytes"),
        ((404, {}, b"no such page"), "answered 404 with 'no such page'"),
        ((500, {}, b""), "answered 500"),
        ("drop", "could not be reached"),
    ],
)
def test_a_bad_answer_fails_the_batch(serving, answer, reason):
    with serving(lambda *_: answer) as server:
        reward = http(server.url, low=-1)
        with pytest.warns(RewardWarning) as warned:
            values = reward([episode(text) for text in "abc"])
        assert values.tolist() == [-1, -1, -1]
        assert reward.failures == 3
        assert all(reason in str(w.message) and server.url in str(w.message) for w in warned)


@pytest.mark.parametrize("field", ["/data/0/scores", "scores"])
def test_the_field_may_be_a_pointer(serving, field):
    answer = ok({"data": [{"scores": [1, 0]}], "scores": [1, 0]})
    with serving(lambda *_: answer) as server:
        assert http(server.url, field=field)([episode("a"), episode("b")]).tolist() == [1, 0]


def test_at_pointer():
    value = {"a": [{"b/c": {"~": 1}}], "": 2, "0": 3, "x/y": 4}
    assert at_pointer(value, "/a/0/b~1c/~0") == 1
    assert at_pointer(value, "/") == 2
    assert at_pointer(value, "/0") == 3
    assert at_pointer(value, "x/y") == 4
    assert at_pointer([1], "") == [1]
    for nothing in ("/a/1", "/a/-1", "/a/x", "/a/0/b", "a/0", "/a/0/b~1c/~0/1"):
        with pytest.raises(ValueError, match="nothing at"):
            at_pointer(value, nothing)


def test_rewards_are_cached_one_by_one(serving, tmp_path):
    options = {"cache": tmp_path / "c"}
    with serving(score) as server:
        first = http(server.url, **options)
        values = first([episode(t) for t in ("a", "bb", "a")])
        first.close()
        second = http(server.url, **options)
        again = second([episode(t) for t in ("bb", "ccc", "a")])
        assert again.tolist() == [values[1], np.float32(0.3), values[0]]
        assert [len(body["episodes"]) for *_, body in server.requests] == [2, 1]
        assert second.figures()["cache_hits"] == 2
        # Of another range, what was kept is judged anew.
        with pytest.warns(RewardWarning, match=r"from 0\.25 to 1, got 0\.2"):
            assert http(server.url, low=0.25, **options)([episode("bb")]).tolist() == [0.25]


def test_rubbish_is_not_cached(serving, tmp_path):
    with serving(lambda n, b: ok({"rewards": [7, 1]}) if n == 0 else score(n, b)) as server:
        reward = http(server.url, cache=tmp_path / "c")
        with pytest.warns(RewardWarning):
            assert reward([episode("a"), episode("bb")]).tolist() == [0, 1]
        assert reward([episode("a"), episode("bb")]).tolist() == [np.float32(0.1), 1]


@pytest.mark.filterwarnings("ignore::textgym.errors.RewardWarning")
def test_a_dead_service_does_not_stall_training(serving):
    def hang(n, body):
        server.stall()
        return ok({})

    with serving(hang) as server:
        reward = http(server.url, request_timeout=1.0, batched=False)
        with pytest.warns(RewardWarning, match="none is sent for 60 s"):
            reward([episode(str(i)) for i in range(8)])
        start = time.monotonic()
        for i in range(100):
            assert reward([episode(str(i))]).tolist() == [0]
        assert time.monotonic() - start < 20  # of 100 that each would wait for a second
        assert reward.failures == 108
        assert len(server.requests) == 8


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
def test_in_a_vector_env_inside_a_running_loop(serving, copy_task, tokenizer, mode):
    async def notebook():
        envs = TokenVectorEnv(
            copy_task, 3, tokenizer=tokenizer, rewards=[reward], autoreset_mode=mode
        )
        envs.reset(options={"prompt": "Copy 7:"})
        seven = tokenizer.encode("7")[0]
        envs.step(np.array([seven, tokenizer.eos_token_id, seven]))
        return envs.step(np.full(3, tokenizer.eos_token_id))[1]

    with serving(score) as server:
        reward = http(server.url, name="mine")
        paid = asyncio.run(notebook())
        assert paid[[0, 2]].tolist() == pytest.approx([1.1, 1.1])
        sent = [e for *_, body in server.requests for e in body["episodes"]]
        row = {"prompt": "Copy 7:", "completion": "7", "target": "7", "finish_reason": "stop"}
        assert sent.count(row) == 2


def test_a_time_limit_of_the_reward_holds(serving, copy_task, tokenizer):
    def hang(n, body):
        server.stall()
        return ok({})

    from textgym.rewards.terms import evaluate

    with serving(hang) as server:
        reward = http(server.url, request_timeout=60)
        reward.timeout = 0.2
        start = time.monotonic()
        values, error = evaluate(reward, "http", [episode("a")])
        assert "longer than 0.2 s" in str(error)
        assert values.tolist() == [0]
        assert time.monotonic() - start < 30


def test_it_can_be_pickled(serving):
    with serving(score) as server:
        reward = http(server.url, high=2)
        before = reward([episode("abc")])
        copy = pickle.loads(pickle.dumps(reward))
        assert copy([episode("abc")]).tolist() == before.tolist()
        assert copy.range == (0, 2)


# ---------------------------------------------------------------------- specifications
@pytest.mark.parametrize(
    ("text", "url", "expected"),
    [
        ("http://h/s", "http://h/s", {}),
        ("http://h:80/s,low=-1,high=2", "http://h:80/s", {"range": (-1, 2)}),
        (" url=https://h , low = -1 ", "https://h", {"range": (-1, 1)}),
        ("http://h/?a=1,2&b=x,y", "http://h/?a=1,2&b=x,y", {}),
        ("http://h/?a=1,b=2,batched=no", "http://h/?a=1,b=2", {"batched": False}),
        ("http://h/?low=3", "http://h/?low=3", {"range": (0, 1)}),
        ("http://h/?a=1,low=2,x&b,low=-2", "http://h/?a=1,low=2,x&b", {"range": (-2, 1)}),
        ("http://h/s,field=/a/0,name=n", "http://h/s", {"field": "/a/0", "name": "n"}),
        ("http://h/a%2Cb?t=Zg==,fallback=none", "http://h/a%2Cb?t=Zg==", {"fallback": 0}),
    ],
)
def test_specs(text, url, expected):
    reward = HTTP.from_arguments(text)
    assert reward.client.settings.url == url
    assert {key: getattr(reward, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "URL first"),
        ("low=0", "expected `http://HOST/PATH`"),
        ("http://h/s,lo=0", "unknown argument 'lo'; did you mean `low`"),
        ("http://h/s,lo=0,high=1", "unknown argument 'lo'"),
        ("http://h/s,low=0,high", "'high' is not `key=value`"),
        ("http://h/s,0,1", "'1' is not `key=value`"),
        ("http://h/s,low=much", "`low` must be a number"),
        ("http://h/s,low=0,low=1", "given twice"),
        ("http://h/s,low=1,high=1", "`low` must be below `high`"),
        ("http://h/s,high=inf", "`low` must be below `high`"),
        ("http://h/s,fallback=nan", "`fallback`"),
        ("http://h/s,batch_size=0", "`batch_size`"),
        ("http://h/s,max_chars=0", "`max_chars`"),
        ("ftp://h/s", "expected `http://HOST/PATH`"),
    ],
)
def test_bad_specs(text, match):
    with pytest.raises(ValueError, match=match):
        HTTP.from_arguments(text)


def test_the_range_holds_after_rounding():
    reward = HTTP("http://h", low=0.1, high=0.7)
    for value in (reward.low, reward.high):
        assert reward.range[0] <= float(np.float32(value)) <= reward.range[1]
    assert HTTP("http://h", fallback=3.0).range == (0.0, 3.0)
