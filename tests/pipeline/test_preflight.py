"""What a device is asked before anything is sent, and how it is judged."""

import argparse
import os
import subprocess

import pytest

from pipeline import deploy, preflight
from pipeline.device import Layout

LAYOUT = Layout("/opt/jetmask", "/var/lib/jetmask", "0.1.0-x")
FACTS = {"python": "3.6", "rsync": "/usr/bin/rsync", "sums": "/usr/bin/sha256sum", "docker": "/usr/bin/docker",
         "docker_works": "yes", "systemd": "yes", "user": "me", "ROOT_writable": "yes", "STATE_writable": "yes",
         "ROOT_free_kb": str(300 << 10), "STATE_free_kb": str(300 << 10), "MemTotal": "4000000",
         "MemAvailable": "3000000", "SwapFree": "0"}


def judge(kind, sources=(), **facts):
    parser = argparse.ArgumentParser()
    deploy.options(parser)
    args = parser.parse_args(["bundle", "user@nano"])
    found = preflight.judge({**FACTS, **facts}, args, kind, LAYOUT, 3000, sources, False)
    return {finding.topic: finding for finding in found}


@pytest.mark.parametrize("kind,fact", [("docker", "image"), ("systemd", "venv")])
def test_what_is_there_already_takes_no_further_room(kind, fact):
    """An update of a bundle of some MB must not be refused for lack of the room that a first deployment takes."""
    assert judge(kind)["disk"].level == "bad"
    assert judge(kind, **{fact: "yes"})["disk"].level == "ok"
    assert judge(kind, **{fact: "yes", "STATE_free_kb": "1000"})["disk"].level == "bad"


def test_the_remedy_for_a_full_disk_names_what_fills_it():
    # `docker image prune` alone removes no image with a name, and ours have one.
    assert "docker image ls jetmask" in judge("docker")["disk"].remedy


def test_a_password_is_not_printed():
    source = "rtsp://me:secret@10.0.0.2/1"
    assert "secret" not in judge("docker", [source])["camera"].found


def test_a_docker_that_hangs_is_told(tmp_path):
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nsleep 60\n")
    docker.chmod(0o755)
    layout = Layout(str(tmp_path / "root"), str(tmp_path / "state"), "x")
    script = preflight.script(layout, "python3", str(docker))
    assert script.count("timeout 30 ") == 1
    done = subprocess.run(["sh", "-s"], input=script.replace("timeout 30 ", "timeout 1 "), capture_output=True,
                          text=True, timeout=50, check=True)
    facts = preflight.parse(done.stdout)
    assert facts["docker_works"] == "hangs" and facts["uid"] == str(os.getuid())
    found = judge("docker", docker_works="hangs")["docker"]
    assert found.level == "bad" and "30 s" in found.found
