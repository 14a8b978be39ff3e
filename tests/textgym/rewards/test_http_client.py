"""The client, its limits and its cache, against a real server that misbehaves."""

import asyncio
import json
import multiprocessing
import pickle
import sqlite3
import threading
import time
import warnings
from types import SimpleNamespace

import pytest

from textgym.errors import RewardWarning
from textgym.rewards.service.cache import DiskCache
from textgym.rewards.service.http_client import JSONClient
from textgym.rewards.service.limits import Breaker, TokenBucket
from textgym.rewards.service.session import Failure
from textgym.rewards.service.settings import ServiceSettings

httpx = pytest.importorskip("httpx", reason="httpx is not installed")


def ok(value):
    return 200, {}, json.dumps(value).encode()


def echo(_, body):
    return ok(body)


def client(url, **options):
    options = {"request_timeout": 5.0, "backoff": 0.01, "retries": 2, "seed": 0} | options
    return JSONClient(ServiceSettings(url, **options))


def ask(client, items, size=1, tags=None):
    return client.post(items, pack=list, read=lambda answer, _: answer, size=size, tags=tags)


# ---------------------------------------------------------------------- answers and retries
def test_answers_come_in_order_and_in_groups(serving):
    with serving(echo) as server, client(server.url) as c:
        assert ask(c, list(range(10)), size=4) == list(range(10))
        assert sorted(body for *_, body in server.requests) == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9],
        ]
        assert ask(c, []) == []
        assert c.requests == 3


@pytest.mark.parametrize("bad", [(500, {}, b"oh"), (503, {}, b""), (408, {}, b""), "drop"])
def test_what_may_pass_is_tried_again(serving, bad):
    with serving(lambda n, b: bad if n < 2 else ok(b)) as server, client(server.url) as c:
        assert ask(c, ["a"]) == ["a"]
        assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 422, 302])
def test_what_will_not_pass_is_not_tried_again(serving, status):
    answer = (status, {"Location": "/elsewhere"}, b"no such judge")
    with serving(lambda *_: answer) as server, client(server.url) as c:
        [failure] = ask(c, ["a"])
        assert failure == Failure(f"{server.url} answered {status} with 'no such judge'")
        assert len(server.requests) == 1


def test_a_refusal_after_a_failure_is_a_refusal(serving):
    script = [(500, {}, b"oh"), (404, {}, b"gone")]
    with serving(lambda n, _: script[n % 2]) as server, client(server.url, concurrency=1) as c:
        for i in range(6):  # nor does it open the breaker
            assert ask(c, [i]) == [Failure(f"{server.url} answered 404 with 'gone'")]


def test_retries_end(serving):
    with serving(lambda *_: (500, {}, b"oh")) as server, client(server.url) as c:
        [failure] = ask(c, ["a"])
        assert failure.reason == f"{server.url} answered 500 with 'oh' (try 3)"
        assert len(server.requests) == 3


def test_a_stall_is_cut_short(serving):
    def script(n, body):
        if n == 0:
            server.stall()
        return ok(body)

    with serving(script) as server, client(server.url, request_timeout=0.2, retries=20) as c:
        start = time.monotonic()
        assert ask(c, ["a"]) == ["a"]
        assert 0.2 <= time.monotonic() - start < 30


def test_an_answer_that_drips_is_cut_short_too(serving):
    def script(n, body):
        return 200, {"Content-Length": "1000"}, b" "  # 999 bytes never come

    with serving(script) as server, client(server.url, request_timeout=0.2, retries=0) as c:
        assert "within 0.2 s" in ask(c, ["a"])[0].reason


def test_nobody_there(serving):
    with serving(echo) as server:
        url = server.url
    with client(url) as c:
        assert "could not be reached: ConnectError" in ask(c, ["a"])[0].reason


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_by_all(serving, status):
    first = (status, {"Retry-After": "1"}, b"slow down")
    with serving(lambda n, b: first if n == 0 else ok(b)) as server:
        with client(server.url, concurrency=1) as c:
            assert ask(c, ["a", "b", "c"]) == ["a", "b", "c"]
        times = [at for at, *_ in server.requests]
        assert len(times) == 4
        assert times[1] - times[0] >= 0.95


def test_a_retry_after_beyond_the_deadline_fails_at_once(serving):
    busy = (429, {"Retry-After": "Fri, 01 Jan 2999 00:00:00 GMT"}, b"")
    with serving(lambda *_: busy) as server, client(server.url, deadline=60) as c:
        start = time.monotonic()
        assert "429" in ask(c, ["a"])[0].reason
        assert "asks for a pause" in ask(c, ["b"])[0].reason
        assert time.monotonic() - start < 30
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>", "'<html>', which is not JSON"),
        (b"", "'', which is not JSON"),
        (b"\xff\xfe\xfd", "which is not JSON"),
        (b"[" * 100_000, "which is not JSON"),
        (b"[1, 2]", "2 values where 1 were expected"),
        (b"[1" + b"," * 3_000_000, "more than 1000000 bytes"),
    ],
)
def test_rubbish_is_told_and_not_tried_again(serving, data, reason):
    with serving(lambda *_: (200, {}, data)) as server, client(server.url) as c:
        [failure] = ask(c, ["a"])
        assert failure.reason.startswith(f"{server.url} answered 200 with")
        assert reason in failure.reason
        assert len(failure.reason) < 500
        assert len(server.requests) == 1


def test_packed_answers_are_refused(serving):
    answer = (200, {"Content-Encoding": "gzip"}, b"bomb")
    with serving(lambda *_: answer) as server, client(server.url) as c:
        assert "packed as 'gzip'" in ask(c, ["a"])[0].reason
        assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_a_failure_of_one_item_is_placed(serving):
    def read(answer, count):
        return [Failure("odd") if v % 2 else v for v in answer]

    with serving(echo) as server, client(server.url) as c:
        values = c.post([2, 3, 4], pack=list, read=read, size=3)
        assert values == [2, Failure(f"{server.url} answered 200 with '[2, 3, 4]': odd"), 4]


# ---------------------------------------------------------------------- limits
def test_concurrency_is_bounded(serving):
    together = threading.Barrier(3)

    def script(n, body):
        together.wait(20)  # for two others, and a while for a fourth
        server.stall(0.02)
        return ok(body)

    with serving(script) as server, client(server.url, concurrency=3, request_timeout=30) as c:
        assert ask(c, list(range(21))) == list(range(21))
        assert server.most_running == 3


def test_the_rate_is_bounded(serving):
    with serving(echo) as server, client(server.url, rate=50) as c:
        ask(c, ["first"])  # connected, so that the rate is what takes time
        start = time.monotonic()
        assert ask(c, list(range(20))) == list(range(20))
        assert max(at for at, *_ in server.requests) - start >= 0.95 * 19 / 50


def test_requests_for_which_there_is_no_time_fail(serving):
    with serving(echo) as server, client(server.url, rate=5, deadline=1.1) as c:
        values = ask(c, list(range(50)))
        done = [v for v in values if not isinstance(v, Failure)]
        assert 1 <= len(done) <= 6
        assert "others came first" in values[-1].reason


def test_the_deadline_holds_for_a_batch_against_a_service_that_hangs(serving):
    def script(n, body):
        server.stall()
        return ok(body)

    with (
        serving(script) as server,
        client(server.url, concurrency=2, deadline=0.5, request_timeout=60) as c,
    ):
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RewardWarning)
            assert all(isinstance(v, Failure) for v in ask(c, list(range(20))))
        assert time.monotonic() - start < 30


def test_token_bucket():
    bucket = TokenBucket(2.0)
    waits = []
    for now in (10.0, 10.0, 10.25, 100.0, 100.0):
        waits.append(bucket.delay(now))
        bucket.take(now)
    assert waits == pytest.approx([0, 0.5, 0.75, 0, 0.5])
    free = TokenBucket(None)
    assert free.delay(1.0) == 0
    free.pause(3.0)
    assert free.delay(1.0) == 2


def test_breaker():
    breaker = Breaker(2, 10.0)
    breaker.failed(0.0, "a")
    breaker.succeeded()
    breaker.failed(1.0, "b")
    assert (breaker.closed_for(1.0), breaker.probing) == (0, False)
    breaker.failed(2.0, "c")
    breaker.failed(3.0, "d")  # was under way: prolongs nothing
    assert (breaker.closed_for(4.0), breaker.probing, len(breaker.notes)) == (8, True, 1)
    breaker.failed(12.0, "e")
    assert (breaker.closed_for(12.0), len(breaker.notes)) == (10, 2)
    breaker.succeeded()
    assert (breaker.closed_for(12.0), breaker.probing) == (0, False)


def test_a_service_that_is_down_is_left_alone_then_found_again(serving, monkeypatch):
    down, ahead = True, 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead)
    monkeypatch.setattr("textgym.rewards.service.session.time", clock)

    def script(n, body):
        return (500, {}, b"down") if down else ok(body)

    with serving(script) as server, client(server.url, cool_down=600, retries=1) as c:
        with pytest.warns(RewardWarning, match=r"last 5 requests failed.* 600 s.*answered 500"):
            ask(c, list(range(8)))
        count = len(server.requests)
        [failure] = ask(c, ["a"])
        assert "was not asked, nor will be for" in failure.reason
        assert "answered 500" in failure.reason
        assert len(server.requests) == count
        ahead += 601
        with pytest.warns(RewardWarning, match="requests failed"):
            ask(c, ["a"])
        assert len(server.requests) == count + 1  # without a retry
        down = False
        ahead += 601
        assert ask(c, ["a", "b"]) == ["a", "b"]
        assert ask(c, ["c"]) == ["c"]


# ---------------------------------------------------------------------- the cache
def test_the_cache_outlives_the_client(serving, tmp_path):
    file = tmp_path / "answers.sqlite"
    with serving(echo) as server:
        with client(server.url, cache=file) as c:
            assert ask(c, ["a", "b", "a"]) == ["a", "b", "a"]  # equal ones once
            assert (len(server.requests), c.cache_hits) == (2, 0)
        with client(server.url, cache=file) as c:
            assert ask(c, ["b", "c", "a"], size=3) == ["b", "c", "a"]
            assert (len(server.requests), c.cache_hits) == (3, 2)
            assert ask(c, ["a"], tags=["again"]) == ["a"]
            assert len(server.requests) == 4
        with client(server.url, cache=file, version="2") as c:
            ask(c, ["a"])
            assert len(server.requests) == 5
        with client(server.url + "?other", cache=file) as c:
            ask(c, ["a"])
            assert len(server.requests) == 6


def test_failures_are_not_cached(serving, tmp_path):
    with serving(lambda n, b: (400, {}, b"") if n == 0 else ok(b)) as server:
        c = client(server.url, cache=tmp_path / "c")
        assert isinstance(ask(c, ["a"])[0], Failure)
        assert ask(c, ["a"]) == ["a"]
        c.close()


def spoil_all(file):
    file.write_bytes(b"this is no database at all, but longer than a header of one " * 100)


def spoil_pages(file):
    data = bytearray(file.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    file.write_bytes(bytes(data))


def spoil_table(file):
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE textgym_answers")
        database.execute("CREATE TABLE textgym_answers (other INTEGER)")
    database.close()


@pytest.mark.parametrize("spoil", [spoil_all, spoil_pages, spoil_table])
def test_a_spoilt_cache_is_done_without(serving, tmp_path, spoil):
    file = tmp_path / "answers.sqlite"
    DiskCache(file).put({"a": 1})
    spoil(file)
    with serving(echo) as server, client(server.url, cache=file) as c:
        with pytest.warns(RewardWarning, match=r"answers.sqlite cannot be used .*Delete"):
            assert ask(c, ["a"]) == ["a"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert ask(c, ["a"]) == ["a"]


def test_a_spoilt_value_is_as_good_as_none(tmp_path):
    cache = DiskCache(tmp_path / "c")
    cache.put({"a": [1.5, None], "b": 2})
    with sqlite3.connect(tmp_path / "c") as database:
        database.execute("UPDATE textgym_answers SET value = 'oh' WHERE key = 'b'")
    database.close()
    assert cache.get(["a", "b", "c"]) == {"a": [1.5, None]}
    cache.put({f"{i}": i for i in range(1234)})
    assert len(cache.get([f"{i}" for i in range(2000)])) == 1234


def put_many(path, start):
    cache = DiskCache(path)
    for i in range(start, start + 20):
        cache.put({str(i): i})


def test_several_processes_share_a_cache(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=put_many, args=(tmp_path / "c", start)) for start in (0, 20, 40)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(DiskCache(tmp_path / "c").get([str(i) for i in range(60)])) == 60


# ---------------------------------------------------------------------- threads and processes
def test_inside_a_running_event_loop(serving):
    async def notebook():
        return ask(c, [1, 2])

    with serving(echo) as server, client(server.url) as c:
        assert asyncio.run(notebook()) == [1, 2]
        assert asyncio.run(notebook()) == [1, 2]


def test_several_threads_share_a_client(serving):
    with serving(echo) as server, client(server.url) as c:
        found = {}
        threads = [
            threading.Thread(target=lambda i=i: found.update({i: ask(c, [i, -i])}))
            for i in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == {i: [i, -i] for i in range(6)}
        assert sum(t.name == "textgym-service" for t in threading.enumerate()) == 1


def service_threads():
    return [t for t in threading.enumerate() if t.name == "textgym-service"]


def test_closing_ends_the_thread_and_it_opens_again(serving):
    before = len(service_threads())
    with serving(echo) as server:
        c = client(server.url)
        assert ask(c, [1]) == [1]
        assert len(service_threads()) == before + 1
        c.close()
        c.close()
        assert len(service_threads()) == before
        assert ask(c, [2]) == [2]
        del c  # nor is one forgotten kept
        assert len(service_threads()) == before


def test_pickles_and_forks_open_their_own_connections(serving):
    def child():
        pipe.send(ask(c, [7]))

    with serving(echo) as server, client(server.url) as c:
        assert ask(c, [1]) == [1]
        with pickle.loads(pickle.dumps(c)) as copy:
            assert ask(copy, [2]) == [2]
        receiver, pipe = multiprocessing.Pipe(False)
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert receiver.poll(60)
        assert receiver.recv() == [7]
        process.join(60)
        assert process.exitcode == 0
        assert ask(c, [3]) == [3]


# ---------------------------------------------------------------------- keys and settings
def test_the_key_is_sent_and_nowhere_else(serving, monkeypatch, tmp_path, caplog, recwarn):
    key = "sk-very/secret-0123456789"
    monkeypatch.setenv("MY_KEY", key)
    caplog.set_level("DEBUG")

    def script(n, body):
        # It repeats the key where messages would be cut, too.
        return (500 if n < 5 else 200), {}, json.dumps(["x" * 185 + key]).encode()

    with serving(script) as server:
        c = client(server.url, key_env="MY_KEY", cache=tmp_path / "c", retries=0)
        failures = [ask(c, [i])[0] for i in range(5)]  # opens the breaker, which warns
        failures += ask(c, [5])
        assert all(isinstance(f, Failure) for f in failures)
        c.close()  # a new session
        bad = c.post(["a"], pack=list, read=lambda answer, _: [Failure(answer[0])])
        assert c.post(["a"], pack=list, read=lambda answer, _: answer) == ["x" * 185 + "***"]
        DiskCache(tmp_path / "c").put({"other": 1})
        assert server.requests[0][1]["Authorization"] == f"Bearer {key}"
        texts = [*(f.reason for f in failures + bad), caplog.text, repr(c.settings)]
        texts += [str(w.message) for w in recwarn.list]
        assert any("requests failed" in text for text in texts)
        for text in texts:
            assert "sk-very" not in text
        assert b"sk-very" not in pickle.dumps(c) + (tmp_path / "c").read_bytes()
        c.close()


@pytest.mark.parametrize("given", ["sk-0123", "UNSET_VARIABLE_OF_TEXTGYM", "BROKEN_KEY"])
def test_bad_keys_are_not_shown(monkeypatch, given):
    monkeypatch.setenv("BROKEN_KEY", "sk-0123\nsk-0123")
    with pytest.raises(ValueError, match="environment variable") as caught:
        ServiceSettings("http://localhost/", key_env=given)
    assert "sk-0123" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:80", "ftp://a/b", "http://", "http://a b/", "http://a:x/", "http://[::1"),
        *("http://user:secret@host/", "http://host/\n", 3),
    ],
)
def test_bad_urls(url):
    with pytest.raises(ValueError, match="expected `http://HOST/PATH`") as caught:
        ServiceSettings(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"retries": -1},
        {"retries": 1.5},
        {"request_timeout": 0},
        {"deadline": float("nan")},
        {"backoff": -1},
        {"rate": 0},
        {"give_up_after": 0},
        {"cool_down": float("inf")},
        {"max_bytes": 0},
        {"cache": "/no/such/folder/c"},
    ],
)
def test_bad_settings(options):
    [name] = options
    with pytest.raises(ValueError, match=f"`{name}`"):
        ServiceSettings("http://localhost/", **options)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"textgym\[rewards\]"):
        client("http://localhost/")
