"""The step that kills the runner without warning and starts it again: camera, GPU and port must be free at once."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Optional

from jetson.firstlight.step import FAIL, PASS, Known, Outcome, Say, Settings

START_S = 300.0
GONE_S = 15.0
END_S = 10.0


class _Runner:
    """`python3 -m jetson serve` in a session of its own."""

    def __init__(self, settings: Settings, known: Known, folder: str) -> None:
        variant, runtime = known.best
        self._ready = os.path.join(folder, "ready.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._ready)
        words = ["serve", os.path.abspath(settings.bundle), "--source", known.source(), "--variant", variant.name]
        words += ["--runtime", runtime] if runtime else []
        words += [
            "--port",
            "0",
            "--ready-file",
            self._ready,
            "--tradeoff",
            "off",
            "--drift",
            "off",
            "--wait-for-source",
        ]
        here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        path = os.environ.get("PYTHONPATH")
        env = dict(os.environ, PYTHONPATH=here + (os.pathsep + path if path else ""))
        if settings.engines:
            env["JETMASK_ENGINES"] = settings.engines
        self._log = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by close())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jetson"] + words,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )

    def until_results(self) -> Optional[str]:
        """Wait until it has results; why there are none, or None."""
        end = time.monotonic() + START_S
        said = "it does not get ready"
        while time.monotonic() < end:
            if self.process.poll() is not None:
                return f"it ended with {self.process.returncode}: {self.last()}"
            with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
                with open(self._ready) as file:
                    port = int(json.load(file)["url"].rsplit(":", 1)[1].rstrip("/"))
                camera = _state(port)["cameras"][0]
                if camera["results"] > 0:
                    return None
                said = f"the camera is {camera['status']}"
            time.sleep(0.1)
        return f"no result within {START_S:.0f} s ({said}): {self.last()}"

    def last(self) -> str:
        """Its last line of output."""
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"

    def kill(self) -> None:
        """As the kernel does when memory runs out: this process alone, without a word."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it and what it has started."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


def _state(port: int) -> Dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/api/state")
        return json.loads(connection.getresponse().read().decode("utf-8"))
    finally:
        connection.close()


def _children(pid: int) -> List[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(name))
    return found


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def run(settings: Settings, known: Known, say: Say) -> Outcome:
    """Started, killed (SIGKILL), started again, and ended as `docker stop` does (SIGTERM)."""
    measured: Dict[str, Any] = {"variant": known.best[0].name, "runtime": known.best[1]}
    with tempfile.TemporaryDirectory(prefix="first-light-") as folder:
        for turn in ("first", "second"):
            say(f"{turn} start")
            began = time.monotonic()
            runner = _Runner(settings, known, folder)
            try:
                problem = runner.until_results()
                measured[f"{turn}_start_s"] = round(time.monotonic() - began, 1)
                if problem is not None:
                    return Outcome(FAIL, f"the {turn} start: {problem}", measured)
                children = _children(runner.process.pid)
                began = time.monotonic()
                if turn == "first":
                    say("SIGKILL")
                    runner.kill()
                    limit = GONE_S
                else:
                    say("SIGTERM")
                    runner.process.terminate()
                    limit = END_S
                pids = children + ([] if turn == "first" else [runner.process.pid])
                while any(map(_lives, pids)) and time.monotonic() - began < limit:
                    runner.process.poll()
                    time.sleep(0.05)
                measured["gone_s" if turn == "first" else "end_s"] = round(time.monotonic() - began, 2)
                left = sum(map(_lives, pids))
                if left:
                    sign = "SIGKILL" if turn == "first" else "SIGTERM"
                    return Outcome(FAIL, f"{left} of its processes still ran {limit:.0f} s after {sign}", measured)
            finally:
                runner.close()
    text = "results after {first_start_s} s; killed, and results again after {second_start_s} s; ended in {end_s} s"
    return Outcome(PASS, text.format(**measured), measured)
