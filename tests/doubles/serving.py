"""A real `python3 -m jetson serve` process on loopback, and what a test asks of it."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATIENCE_S = 60.0  # generous: the machine may be busy


def wait_for(check, what, patience_s=PATIENCE_S):
    """The first true value of `check()`; AssertionError when there is none in time."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        value = check()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not in {patience_s:.0f} s: {what}")


class Serving:
    """`serve BUNDLE --source …` until the block ends. `env`: further variables; `program`: instead of -m jetson."""

    def __init__(self, bundle, *sources, options=(), env=None, program=("-m", "jetson"), wait=True):
        self.folder = tempfile.TemporaryDirectory(prefix="serving")
        self.ready = os.path.join(self.folder.name, "ready.json")
        self.log_path = os.path.join(self.folder.name, "log")
        command = [sys.executable] + list(program) + ["serve", str(bundle), "--port", "0", "--ready-file", self.ready]
        for uri in sources:
            command += ["--source", str(uri)]
        self._log = open(self.log_path, "wb")  # noqa: SIM115 (closed by close())
        environment = dict(os.environ, PYTHONPATH=ROOT, **(env or {}))
        self.process = subprocess.Popen(
            command + list(options),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self.port = None
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.close()
                raise

    def wait_ready(self):
        wait_for(lambda: os.path.exists(self.ready) or self.process.poll() is not None, "serving")
        assert self.process.poll() is None, self.log()
        with open(self.ready) as file:
            self.port = int(json.load(file)["url"].rsplit(":", 1)[1].rstrip("/"))

    def listening(self):
        """Whether it has its port already, ready or not; the port is then known."""
        inodes = set()
        for number in os.listdir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(f"/proc/{self.process.pid}/fd/{number}"))
        with open("/proc/net/tcp") as file:
            for row in list(file)[1:]:
                fields = row.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    self.port = int(fields[1].split(":")[1], 16)
                    return True
        return False

    def log(self):
        with open(self.log_path, "rb") as file:
            return file.read().decode("utf-8", "replace")

    def get(self, path, headers=None, timeout=PATIENCE_S):
        """(status, headers, body) of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def post(self, path, value, timeout=PATIENCE_S):
        """(status, body) of a POST of JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, json.dumps(value), {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def state(self):
        return json.loads(self.get("/api/state")[2].decode())

    def camera(self, index=0):
        return self.state()["cameras"][index]

    def wait_results(self, count=1, index=0):
        """Until `count` further results are there."""
        before = self.camera(index)["results"]
        return wait_for(lambda: self.camera(index)["results"] >= before + count, f"{count} results")

    def wait_status(self, status, index=0):
        return wait_for(lambda: self.camera(index)["status"] == status, "camera " + status)

    def end(self, number=signal.SIGTERM, patience_s=PATIENCE_S):
        """Send a signal; (exit code, seconds it took)."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(patience_s)
        return code, time.monotonic() - began

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()
        with contextlib.suppress(OSError):
            self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def children(pid):
    """The process ids of a process's children (its capture processes)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(name))
    return found


def alive(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


FAULTY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "faulty_engine.py")
