"""A web server that takes alerts, or does not."""

import http.server
import threading

import pytest


class Takes:
    """A server on loopback. `answers`: what it says to the next requests (then 200); `got`: bodies and headers."""

    def __init__(self, port=0):
        self.got, self.answers = [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer.answers.pop(0) if outer.answers else 200
                if status == 200:
                    outer.got.append((self.path, dict(self.headers.items()), body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = (
            http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
            if hasattr(http.server, "ThreadingHTTPServer")
            else http.server.HTTPServer(("127.0.0.1", port), Handler)
        )
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def takes():
    """`takes(port)` starts such a server."""
    made = []

    def start(port=0):
        made.append(Takes(port))
        return made[-1]

    yield start
    for one in made:
        one.close()
