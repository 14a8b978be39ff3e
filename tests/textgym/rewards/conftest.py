"""`serving`: a real local server that does as a test says."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server:
    """Answers the n-th request with `script(n, body)`.

    That is (status, headers, bytes), or "drop" to close the connection without an answer.
    """

    def __init__(self, script):
        self.script, self.requests = script, []
        self.running = self.most_running = 0
        self._lock = threading.Lock()
        self.stop = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer._lock:
                    number = len(outer.requests)
                    outer.requests.append((time.monotonic(), dict(self.headers), json.loads(body)))
                    outer.running += 1
                    outer.most_running = max(outer.most_running, outer.running)
                try:
                    answer = outer.script(number, json.loads(body))
                finally:  # before the client knows, and sends the next
                    with outer._lock:
                        outer.running -= 1
                try:
                    self.answer(answer)
                except OSError:  # the client has gone
                    self.close_connection = True

            def answer(self, answer):
                if answer == "drop":
                    self.close_connection = True
                    return
                status, headers, data = answer
                self.send_response(status)
                for key, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/judge"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stall(self, seconds=60):
        """Wait, but not beyond the test: longer, then, than a slow machine takes for the rest."""
        self.stop.wait(seconds)

    def close(self):
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def serving(script):
    server = Server(script)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(name="serving")
def serving_fixture(monkeypatch):
    """`with serving(script) as server`: see `Server`. Proxies are passed by."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return serving
