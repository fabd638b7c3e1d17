"""`jetmask run` and `jetmask bench`: the device's code, by default with the bundle that ships."""

import argparse
import json
import os
import subprocess
import sys

from pipeline import run
from pipeline.bench import cli as bench


def parsed(module, *words):
    parser = argparse.ArgumentParser()
    module.options(parser)
    return parser.parse_args(words)


def test_the_shipped_bundle_is_the_default():
    assert parsed(run, "--source", "clip.mp4").bundle == run.SHIPPED
    assert parsed(bench).bundle == run.SHIPPED
    assert run.SHIPPED.endswith(os.path.join("jetson", "models"))


def test_run_serves_a_source_to_its_end(tiny_bundle, root):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipeline.cli",
            "run",
            "--bundle",
            tiny_bundle,
            "--source",
            "synthetic://?size=160x120&frames=20&fps=0",
            "--once",
            "--every-frame",
            "--port",
            "0",
            "--tradeoff",
            "off",
        ],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "ended after 20 results" in done.stderr, done.stderr


def test_bench_here_and_what_a_device_cannot_be_asked(tiny_bundle, root):
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "bench",
        "--bundle",
        tiny_bundle,
        "--seconds",
        "0.1",
        "--json",
        "--variant",
        "t-320x192-fp32",
        "--runtime",
        "onnxruntime",
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and json.loads(done.stdout)["rows"][0]["latency_ms"]["p50"] > 0, done.stderr
    done = subprocess.run(
        [*command, "--device", "me@nano", "--source", "x"], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "--device" in done.stderr
