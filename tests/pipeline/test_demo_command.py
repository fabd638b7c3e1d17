"""The command that the demo ends with can be pasted into the shell that it was started from."""

import os
import shlex
import sys

from pipeline.demo import live as demo


def test_the_live_page_s_command_runs_where_jetmask_is_not_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [".venv/bin/jetmask", "demo"])
    words = shlex.split(demo.serve_command(tmp_path / "mein Bündel", "synthetic://?faces=2&blur=1"))
    assert words == [
        ".venv/bin/jetmask",
        "run",
        "--bundle",
        str(tmp_path / "mein Bündel"),
        "--source",
        "synthetic://?faces=2&blur=1",
    ]
    (tmp_path / "jetmask").write_text("#!/bin/sh\n")
    os.chmod(tmp_path / "jetmask", 0o755)
    assert demo.serve_command("b", "a.mp4") == "jetmask run --bundle b --source a.mp4"
