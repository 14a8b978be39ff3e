"""A hub id that cannot be fetched: one line that says which, and what to do.

The hub is simulated below `huggingface_hub`: its own code turns the answers into its errors.
"""

import json

import huggingface_hub
import pytest
import tokenizers
from huggingface_hub import errors

from textgym import Tokenizer

try:
    import httpx2 as http
except ModuleNotFoundError:
    import httpx as http


def answer(status: int, code: str | None = None):
    """The hub's answer with that status, as its client library holds it."""
    headers = {"x-error-code": code} if code else {}
    return http.Response(status, headers=headers, request=http.Request("GET", "https://hub/x"))


def hub_that(monkeypatch, outcome):
    """Let every download end with `outcome(filename)`: a path, or an exception raised."""

    def download(repo_id, filename, **options):
        result = outcome(filename)
        if isinstance(result, Exception):
            raise result
        return str(result)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.startswith("tokenizer: ")
    return text


@pytest.mark.parametrize(
    "failure",
    [
        errors.LocalEntryNotFoundError("cannot find it on the disk, and outgoing traffic is off"),
        errors.OfflineModeIsEnabled("offline mode is on"),
        errors.HfHubHTTPError("502 Server Error", response=answer(502)),
        http.ConnectError("Name or service not known"),
        http.ReadTimeout("timed out"),
        ConnectionResetError("Connection reset by peer"),
        TimeoutError("timed out"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_no_network(monkeypatch, failure):
    hub_that(monkeypatch, lambda filename: failure)
    with pytest.raises(ConnectionError) as raised:
        Tokenizer.load("owner/name")
    line = one_line(raised.value)
    assert "'owner/name'" in line
    assert "could not be reached" in line
    assert "give a directory" in line


@pytest.mark.parametrize("kind", [errors.RepositoryNotFoundError, errors.GatedRepoError])
def test_no_such_id(monkeypatch, kind):
    failure = kind("401 Client Error", response=answer(401, "RepoNotFound"))
    hub_that(monkeypatch, lambda filename: failure)
    with pytest.raises(FileNotFoundError) as raised:
        Tokenizer.load("owner/nmae")
    line = one_line(raised.value)
    assert "'owner/nmae'" in line
    assert "Check the spelling" in line


def test_no_tokenizer_in_it(monkeypatch):
    failure = errors.RemoteEntryNotFoundError(
        "404 Client Error", response=answer(404, "EntryNotFound")
    )
    hub_that(monkeypatch, lambda filename: failure)
    with pytest.raises(FileNotFoundError) as raised:
        Tokenizer.load("owner/weights-only")
    line = one_line(raised.value)
    assert "'owner/weights-only'" in line
    assert "no tokenizer.json" in line
    assert "another `tokenizer`" in line


@pytest.mark.parametrize("repo_id", ["two words", "a--b", "-x", "ends."])
def test_not_an_id_at_all(repo_id):
    with pytest.raises(ValueError, match="neither an existing directory nor a hub id") as raised:
        Tokenizer.load(repo_id)
    assert repr(repo_id) in one_line(raised.value)


def test_a_broken_download(monkeypatch, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    hub_that(monkeypatch, lambda filename: tmp_path / filename)
    with pytest.raises(ValueError, match="is not a tokenizers file"):
        Tokenizer.load("owner/broken")


@pytest.fixture
def files(tmp_path):
    """A tokenizer's two files, as the hub would hand them out."""
    vocabulary = {"a": 0, "b": 1, "</s>": 2, "stop": 3}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="a"))
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": "stop"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_what_can_be_fetched_is(monkeypatch, files):
    hub_that(monkeypatch, lambda filename: files / filename)
    tokenizer = Tokenizer.load("owner/name")
    assert (tokenizer.name, tokenizer.eos_token) == ("owner/name", "stop")


def test_a_configuration_that_is_not_there_is_done_without(monkeypatch, files):
    missing = errors.RemoteEntryNotFoundError("404", response=answer(404, "EntryNotFound"))
    hub_that(monkeypatch, lambda filename: missing if "config" in filename else files / filename)
    (files / "tokenizer_config.json").unlink()
    assert Tokenizer.load("owner/name").eos_token == "</s>"


def test_a_configuration_known_to_be_missing_is_done_without_offline(monkeypatch, files):
    unknown = errors.LocalEntryNotFoundError("outgoing traffic is off")
    hub_that(monkeypatch, lambda filename: unknown if "config" in filename else files / filename)
    (files / "tokenizer_config.json").unlink()
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: object())
    assert Tokenizer.load("owner/name").eos_token == "</s>"


def test_a_configuration_lost_on_the_way_is_an_error(monkeypatch, files):
    """Without it the end-of-sequence token would be guessed, and silently be another one."""
    lost = http.ConnectError("Connection reset")
    hub_that(monkeypatch, lambda filename: lost if "config" in filename else files / filename)
    with pytest.raises(ConnectionError):
        Tokenizer.load("owner/name")


def test_without_a_network_at_all():
    """The real client, in this process, on a port where nobody listens."""
    import os
    import subprocess
    import sys

    code = (
        "from textgym import Tokenizer\n"
        "try:\n"
        "    Tokenizer.load('owner/name')\n"
        "except ConnectionError as error:\n"
        "    print(error)"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_HUB_ETAG_TIMEOUT": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60
    )
    assert "'owner/name'" in done.stdout, done.stderr
    assert "could not be reached" in done.stdout
