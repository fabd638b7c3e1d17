"""The demo's live run: the device's own program on a clip, as an operator starts and watches it."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jetson.errors import JetmaskError
from pipeline.paths import SHIPPED


def manifest_shipped() -> Path:
    return Path(SHIPPED)


def clip(root: Any) -> str:
    """A clip to run on: the first of the data's clips/, else drawn people that walk."""
    clips = sorted((Path(root) / "clips").glob("*.mp4")) if root else []
    return str(clips[0]) if clips else "synthetic://"


def serve_command(bundle: Any, source: str) -> str:
    """The command that serves the page, as it can be pasted: `make demo` has no jetmask on the PATH."""
    return shlex.join(
        ["jetmask" if shutil.which("jetmask") else sys.argv[0], "run", "--bundle", str(bundle), "--source", source]
    )


def run_live(bundle: Any, source: str, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the device's own program on a source for some seconds and read what it measured, as an operator would."""
    say(f"running the on-device program on {source} for {int(seconds)} s")
    with tempfile.TemporaryDirectory(prefix="jetmask-live-") as folder:
        ready, log = Path(folder) / "ready.json", Path(folder) / "log"
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "jetson",
                    "serve",
                    str(bundle),
                    "--source",
                    source,
                    "--port",
                    "0",
                    "--ready-file",
                    str(ready),
                ],
                stdout=out,
                stderr=out,
                cwd=str(Path(__file__).parents[2]),
            )
        try:
            deadline = time.time() + 60
            while not ready.exists():
                if process.poll() is not None or time.time() > deadline:
                    raise JetmaskError(
                        "the runner did not start",
                        where=source,
                        expected="a page within 60 s",
                        remedy=log.read_text(errors="replace")[-600:],
                    )
                time.sleep(0.1)
            url = json.loads(ready.read_text())["url"]
            time.sleep(seconds)
            with urllib.request.urlopen(url.rstrip("/") + "/api/state", timeout=10) as answer:
                state = json.loads(answer.read())
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    camera = state["cameras"][0]
    steps = {stage: p.get("p50") for stage, p in state["latency_ms"].items()}
    return {
        "source": Path(source).name if "://" not in source else source,
        "variant": state["variant"]["name"],
        "runtime": state["variant"]["runtime"],
        "results": state["results"],
        "frames_per_s": state["fps"],
        "camera_frames_per_s": camera["camera_fps"],
        **{f"{k}_p50_ms": v for k, v in steps.items()},
        "persons_seen": camera["persons"]["total"],
        "memory_MB": round(state["memory_bytes"] / 1e6),
    }
