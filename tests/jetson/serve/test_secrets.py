"""A whole run with six kinds of secrets in its cameras' addresses: in nothing that it says, keeps or shows is one."""

import contextlib
import json
import os
import signal
import socket
import threading

import pytest
import stand_ins
from broker import Broker, Listener
from serving import Serving, alive, children, wait_for

SECRETS = ["Geheim71", "Geheim72", "Geheim73", "Geheim74", "Geheim75", "Geheim/7 6"]
ADDRESSES = [
    "rtsp://admin:Geheim71@127.0.0.1:{0}/ch1",
    "rtsp://127.0.0.1:{0}/admin/Geheim72/ch1",
    "gate=http://127.0.0.1:{0}/mjpeg?user=admin&pw=Geheim73",
    "rtsp://127.0.0.1:{0}/live?key=Geheim74",
    "http://127.0.0.1:{0}/user=admin_password=Geheim75_channel=1/stream.mjpg?auth=Geheim75",
    "rtsp://{{cam6}}@127.0.0.1:{0}/ch1",
]


class Camera:
    """Answers each request with a refusal that repeats what was asked, as some cameras do; `asked`: all that was."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(20)
        self.port = self.listener.getsockname()[1]
        self.asked = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self.listener.accept()[0],), daemon=True).start()

    def _answer(self, sock):
        with contextlib.suppress(OSError), sock:
            sock.settimeout(20)
            while True:
                data = sock.recv(65536)
                if not data:
                    return
                self.asked.append(data)
                lines = data.split(b"\r\n")
                protocol = b"RTSP/1.0" if b"RTSP/1.0" in lines[0] else b"HTTP/1.1"
                number = [line for line in lines if line.lower().startswith(b"cseq")]
                login = b'WWW-Authenticate: Basic realm="cam"'
                refused = b"401 " if b"uthorization" not in data else b"403 "
                head = [protocol + b" " + refused + lines[0].split(b" ")[1], b"Content-Length: 0", login] + number
                sock.sendall(b"\r\n".join(head) + b"\r\n\r\n")


def forms(secret):
    """A secret as it may stand somewhere: as it is, quoted, in base64 with its user, in JSON."""
    import base64
    from urllib.parse import quote

    whole = [secret, quote(secret, safe=""), json.dumps(secret)[1:-1]]
    return whole + [base64.b64encode(f"admin:{secret}".encode()).decode()]


def found_in(text, where):
    text = text if isinstance(text, str) else text.decode("utf-8", "replace")
    return [(where, secret) for secret in SECRETS for form in forms(secret) if form in text]


def test_no_secret_is_told_anywhere(tmp_path, tiny_bundle):
    pytest.importorskip("paho.mqtt.client")
    camera = Camera()
    try:
        broker = Broker(tmp_path).start()
    except stand_ins.Missing as error:
        pytest.skip(str(error))
    listener = Listener(broker)
    cameras, passwords = tmp_path / "cameras.txt", tmp_path / "credentials"
    cameras.write_text("".join(text.format(camera.port) + "\n" for text in ADDRESSES))
    passwords.write_text("cam6 admin:Geheim/7 6\n")
    for path in (cameras, passwords):
        path.chmod(0o600)
    (tmp_path / "mqtt.json").write_text(json.dumps({"node": "nano", "spool": "spool"}))
    state = tmp_path / "state"
    state.mkdir()
    events, drift = state / "events.jsonl", state / "drift.json"
    options = ["--tradeoff", "off", "--credentials", str(passwords), "--events", str(events), "--drift", str(drift)]
    options += ["--mqtt", broker.url, "--mqtt-config", str(tmp_path / "mqtt.json")]
    seen, stop = [], threading.Event()

    def watch(pid):
        """Every command line of the runner and its children, over and over."""
        while not stop.is_set():
            for one in [pid] + children(pid):
                with contextlib.suppress(OSError), open(f"/proc/{one}/cmdline", "rb") as file:
                    seen.append(file.read())
            stop.wait(0.02)

    try:
        with Serving(tiny_bundle, str(cameras), "synthetic://?fps=5", options=options) as made:
            watcher = threading.Thread(target=watch, args=(made.process.pid,))
            watcher.start()
            wait_for(lambda: all(one["last_error"] for one in made.state()["cameras"][:6]), "what each says", 120)
            wait_for(lambda: any(b"Authorization" in data for data in camera.asked), "a login")
            wait_for(lambda: len(listener.on("/event")) >= 6, "events at the broker")
            wait_for(lambda: listener.on("/camera/5") and listener.on("/nano/state"), "counts at the broker")
            told = []
            for path in ("/", "/page.js", "/api/state", "/metrics", "/healthz", "/api/drift", "/drift", "/nothing"):
                _, headers, body = made.get(path)
                told += found_in(body, path) + found_in(str(headers), path)
            with socket.create_connection(("127.0.0.1", made.port), timeout=20) as sock:
                sock.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 1\r\n\r\n")
                text = b""
                while b"event: state" not in text or len(text) < 3000:
                    text += sock.recv(65536)
                told += found_in(text, "/api/events")
            names = [one["source"] for one in made.state()["cameras"]]
            stop.set()
            watcher.join()
            made.end()
            told += found_in(made.log(), "log")
        wait_for(lambda: listener.on("/nano/status")[-1:] == ["offline"], "its goodbye")
        for topic, payload, _ in listener.messages:
            told += found_in(topic, "mqtt") + found_in(payload, topic)
        for folder, _, files in os.walk(str(tmp_path)):
            for name in files:
                path = os.path.join(folder, name)
                if path not in (str(cameras), str(passwords)):
                    with open(path, "rb") as file:
                        told += found_in(file.read(), path)
        for line in set(seen):
            told += found_in(line, "a process's command line")
        assert told == []
        # All six were really used, and what is shown is what tells them apart.
        whole = b"".join(camera.asked).decode("utf-8", "replace")
        assert [any(form in whole for form in forms(secret)) for secret in SECRETS] == [True] * 6
        place = f"127.0.0.1:{camera.port}"
        assert names[:3] == ["rtsp://" + place, "rtsp://" + place, f"gate (http://{place})"]
        assert any(b"jetson.capture" in line for line in seen)
    finally:
        stop.set()
        listener.close()
        broker.kill()
        camera.listener.close()


def test_no_secret_is_in_what_a_crash_leaves_behind(tmp_path, tiny_bundle):
    """Capture processes that die of a fault, then the runner itself: its log, with the stacks of all threads."""
    camera = Camera()
    cameras, passwords, state = tmp_path / "cameras.txt", tmp_path / "credentials", tmp_path / "state"
    cameras.write_text("".join(text.format(camera.port) + "\n" for text in ADDRESSES))
    passwords.write_text("cam6 admin:Geheim/7 6\n")
    for path in (cameras, passwords):
        path.chmod(0o600)
    state.mkdir()
    env = {"PYTHONFAULTHANDLER": "1", "JETMASK_STATE": str(state), "JETMASK_CREDENTIALS": str(passwords)}
    try:
        with Serving(tiny_bundle, str(cameras), options=["--tradeoff", "off"], env=env) as made:
            struck = wait_for(lambda: [one for one in children(made.process.pid) if alive(one)], "a capture process")
            for one in struck:
                with contextlib.suppress(OSError):
                    os.kill(one, signal.SIGSEGV)
            wait_for(lambda: all(one["restarts"] for one in made.state()["cameras"]), "each was tried again", 120)
            told = found_in(made.get("/api/state")[2], "state") + found_in(made.get("/metrics")[2], "metrics")
            code, _ = made.end(signal.SIGABRT)
            log = made.log()
        assert code == -signal.SIGABRT and "Fatal Python error" in log and "lost" in log
        told += found_in(log, "log")
        for folder, _, names in os.walk(str(state)):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    told += found_in(file.read(), name)
        assert told == []
    finally:
        camera.listener.close()


@pytest.mark.parametrize(
    "words, code",
    [
        (["--source", "rtsp://admin:Geheim71/x@10.0.0.2/ch1"], 2),
        (["--source", "rtsp://admin:Geheim71@[10.0.0.2/ch1"], 2),
        (["--source", "admin:Geheim71@10.0.0.2/ch1"], 3),
        (["--source", "http://10.0.0.2/a.mp4?key=Geheim71"], 2),
        (["--source", "rtsp://{nobody}@10.0.0.2/Geheim71"], 3),
        (["rtsp://admin:Geheim71@10.0.0.2/ch1", "--source", "synthetic://"], 2),
        (["--sorce", "rtsp://admin:Geheim71@10.0.0.2/ch1"], 2),
        (["--source", "rtsp://admin:Geheim71@10.0.0.2/ch1", "--every-frame"], 2),
    ],
)
def test_a_refused_command_line_does_not_repeat_it(tiny_bundle, words, code):
    import subprocess
    import sys

    from serving import ROOT

    done = subprocess.run(
        [sys.executable, "-m", "jetson", "serve", tiny_bundle, "--port", "0"] + words,
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
    )
    text = done.stdout.decode("utf-8", "replace")
    assert done.returncode == code and "Geheim" not in text and "Traceback" not in text, text
