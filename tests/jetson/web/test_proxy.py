"""The page behind a real nginx, at the root and below a path, with and without the path handed on."""

import json
import os
import shutil
import signal
import socket
import subprocess

import pytest
from broker import free_port
from serving import Serving, wait_for
from test_http_kinds import SCENE, TOKEN, split, talk

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx (Debian: apt-get install nginx-light)")

# As people write it: at the root with and without the name handed on, below a path that is taken away, and below one
# that is not.
CONFIG = """
pid {folder}/nginx.pid; error_log {folder}/nginx.err; worker_processes 1; daemon off;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/nb; proxy_temp_path {folder}/np; fastcgi_temp_path {folder}/nf;
  uwsgi_temp_path {folder}/nu; scgi_temp_path {folder}/ns;
  server {{
    listen 127.0.0.1:{port};
    location /jetmask/ {{ proxy_pass http://127.0.0.1:{runner}/; proxy_set_header Host $host; proxy_http_version 1.1;
      proxy_set_header X-Forwarded-Prefix /jetmask; }}
    location /untold/ {{ proxy_pass http://127.0.0.1:{runner}/; }}
    location /whole/ {{ proxy_pass http://127.0.0.1:{runner}; proxy_set_header X-Forwarded-Prefix /whole; }}
    location / {{ proxy_pass http://127.0.0.1:{runner}; proxy_set_header Host $host; }}
  }}
}}
"""


class Proxy:
    def __init__(self, folder, runner):
        self.port = free_port()
        path = os.path.join(str(folder), "nginx.conf")
        with open(path, "w") as file:
            file.write(CONFIG.format(folder=folder, port=self.port, runner=runner))
        self.process = subprocess.Popen(
            [NGINX, "-c", path, "-p", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self.answers, "nginx listens")

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            assert self.process.poll() is None, "nginx has ended"
            return False

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)

    def get(self, path, fields="", most=1 << 20):
        text = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{fields}Connection: close\r\n\r\n"
        return split(talk(self.port, text.encode(), most=most))


@pytest.fixture(scope="module")
def behind(tiny_bundle, tmp_path_factory):
    """A runner that demands a token, and the proxy before it."""
    folder = tmp_path_factory.mktemp("proxy")
    os.chmod(str(folder), 0o755)
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with Serving(tiny_bundle, SCENE, options=["--tradeoff", "off", "--token-file", str(token)]) as made:
        bearer = {"Authorization": "Bearer " + TOKEN}
        wait_for(lambda: made.get("/snapshot.jpg", bearer)[0] == 200, "the first picture")  # 503 before
        proxy = Proxy(folder, made.port)
        proxy.runner = made
        yield proxy
        proxy.close()


@pytest.mark.parametrize("prefix", ["/", "/jetmask/", "/untold/", "/whole/"])
def test_everything_of_the_page_is_found_through_the_proxy(behind, prefix):
    bearer = f"Authorization: Bearer {TOKEN}\r\n"
    for page in ("", "drift"):
        status, _, body = behind.get(prefix + page, bearer)
        assert status == 200 and b'="/' not in body  # nothing at the root, which is another's there
    for path in ("page.css", "page.js", "drift.js", "icon.svg", "api/state", "snapshot.jpg", "metrics", "healthz"):
        assert behind.get(prefix + path, bearer)[0] == 200, path
    assert behind.get(prefix + "stream.mjpg", bearer, most=300)[0] == 200
    status, fields, body = behind.get(prefix + "enter", fields_of_basic())
    assert status == 200 and b"url=./" in body
    cookie = fields["set-cookie"]
    where = [part.strip()[5:] for part in cookie.split(";") if part.strip().startswith("Path=")]
    # Where none is told, browsers take the folder of the address that they see (RFC 6265, 5.1.4): /untold for
    # /untold/enter; a path of "/" would send it to everything else on that host.
    assert where == ([prefix] if prefix in ("/jetmask/", "/whole/") else [])
    assert behind.get(prefix + "api/state", f"Cookie: {cookie.split(';')[0]}\r\n")[0] == 200
    assert behind.get(prefix + "api/state")[0] == 401


def fields_of_basic():
    import base64

    return "Authorization: Basic " + base64.b64encode(b"me:" + TOKEN.encode()).decode() + "\r\n"


chromium = pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="needs chromium"
)


@chromium
@pytest.mark.parametrize("prefix", ["/jetmask/", "/untold/", "/whole/"])
def test_a_browser_enters_below_a_path_by_the_one_time_address(behind, prefix):
    """It keeps the cookie, whoever chose its path, and shows the picture, for which no other header could be sent."""
    from browser import Browser

    code = behind.runner.log().rsplit("code=", 1)[1].split()[0]
    with Browser(f"http://127.0.0.1:{behind.port}{prefix}enter?code={code}") as page:
        wait_for(lambda: page.js("location.pathname") == prefix, "the page")
        wait_for(lambda: page.js("document.getElementById('picture').naturalWidth") == 320, "the picture")
    wait_for(lambda: not behind.runner.log().rsplit("code=", 1)[1].startswith(code), "a new address in the log")


@chromium
def test_the_page_lives_below_a_path_in_a_browser(tiny_bundle, tmp_path):
    """Picture, events and figures of a page at /jetmask/ come, and so does the page of drift."""
    from browser import Browser

    with Serving(tiny_bundle, SCENE, options=["--tradeoff", "off"]) as made:
        proxy = Proxy(tmp_path, made.port)
        try:
            with Browser(f"http://127.0.0.1:{proxy.port}/jetmask/") as page:
                wait_for(lambda: page.js("document.getElementById('picture').naturalWidth") == 320, "the picture")
                wait_for(lambda: page.js("document.getElementById('health').dataset.state") == "ok", "the state")
                assert page.js("getComputedStyle(document.body).margin") == "0px"  # its style sheet is there
            assert json.loads(proxy.get("/jetmask/api/state")[2].decode())["server"]["streams"] >= 0
        finally:
            proxy.close()
