"""A model that cannot be loaded: one line that says which, and what to do.

A small hub of our own answers on this machine, so that the real clients of `transformers` and
`huggingface_hub` run, errors included.
"""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from textgym_agents.lm import load_model

VIT = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
T5 = {"model_type": "t5", "vocab_size": 8, "d_model": 4, "num_layers": 1, "num_heads": 1}
GPT2 = {"model_type": "gpt2", "vocab_size": 8, "n_embd": 4, "n_layer": 1, "n_head": 1}
REPOSITORIES = {
    "owner/images": {"config.json": json.dumps(VIT)},
    "owner/no-encoder-weights": {"config.json": json.dumps(T5)},
    "owner/no-weights": {"config.json": json.dumps(GPT2)},
    "owner/empty": {},
}


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that downloading a file needs."""

    def do_HEAD(self):
        owner, name, *rest = self.path.strip("/").split("/")
        files = REPOSITORIES.get(f"{owner}/{name}")
        if owner == "broken":
            self.send_response(500)
        elif files is None:
            self.send_response(401)
            self.send_header("X-Error-Code", "RepoNotFound")
        elif rest[:1] != ["resolve"] or rest[-1] not in files:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_response(200)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{abs(hash(files[rest[-1]]))}"')
            self.send_header("Content-Length", str(len(files[rest[-1]])))
            self.end_headers()
            return files[rest[-1]]
        self.send_header("Content-Length", "0")
        self.end_headers()
        return ""

    def do_GET(self):
        self.wfile.write(self.do_HEAD().encode())

    def log_message(self, *args):
        pass


CASES = {
    "owner/images": ("ValueError", "is not a causal language model", "GPT-2 or Llama", "T5"),
    "owner/no-encoder-weights": ("ValueError", "cannot be loaded"),
    "owner/no-weights": ("ValueError", "cannot be loaded", "'owner/no-weights'"),
    "owner/empty": ("ValueError", "cannot be loaded", "'owner/empty'"),
    "owner/nmae": ("FileNotFoundError", "the hub has no (public) model", "Check the spelling"),
    "broken/name": ("ConnectionError", "could not be reached", "give a folder"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What loading each of `CASES` raises: kind and message."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    code = (
        "import json, sys, time\n"
        "time.sleep = lambda seconds: None\n"  # the client waits between its attempts
        "from textgym_agents.lm import load_model\n"
        "answers = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        load_model(name)\n"
        "    except Exception as error:\n"
        "        answers[name] = [type(error).__name__, str(error)]\n"
        "print(json.dumps(answers))"
    )
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(tmp_path_factory.mktemp("hub")),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *CASES],
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_hub_models_that_cannot_be_loaded(answers, name):
    expected, *parts = CASES[name]
    kind, message = answers[name]
    assert kind == expected, message
    assert message.startswith("model: ")
    assert name in message
    assert "\n" not in message
    for part in parts:
        assert part in message


def folder_with(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (json.dumps(VIT), "is not a causal language model, nor an encoder-decoder one"),
        (json.dumps(T5), "cannot be loaded"),
        (json.dumps(GPT2), "cannot be loaded"),
        (json.dumps({"model_type": "nonesuch"}), "cannot be loaded"),
        ("{", "cannot be loaded"),
    ],
    ids=["images", "no encoder weights", "no weights", "unknown architecture", "not JSON"],
)
def test_folders_that_cannot_be_loaded(tmp_path, config, part):
    folder = folder_with(tmp_path, config)
    with pytest.raises(ValueError, match=part) as raised:
        load_model(folder)
    assert folder in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("source", ["./none", "/no/such/folder", "a/b/c", "~/nothing-here"])
def test_no_such_folder(source):
    with pytest.raises(FileNotFoundError, match="no such folder") as raised:
        load_model(source)
    assert source in str(raised.value)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_model(tmp_path)
