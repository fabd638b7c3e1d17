"""What a device is asked before anything is sent, and how it is judged."""

import os
import shutil
import subprocess
import tempfile

import pytest

from pipeline.deploy import preflight
from pipeline.deploy.layout import Layout
from pipeline.deploy.settings import Settings

LAYOUT = Layout("/opt/jetmask", "/var/lib/jetmask", "0.1.0-x")
FACTS = {
    "python": "3.6",
    "rsync": "/usr/bin/rsync",
    "sums": "/usr/bin/sha256sum",
    "docker": "/usr/bin/docker",
    "docker_works": "yes",
    "systemd": "yes",
    "sudo": "yes",
    "user": "me",
    "ROOT_writable": "yes",
    "STATE_writable": "yes",
    "ROOT_free_kb": str(300 << 10),
    "STATE_free_kb": str(300 << 10),
    "MemTotal": "4000000",
    "MemAvailable": "3000000",
    "SwapFree": "0",
}


def judge(kind, sources=(), **facts):
    found = preflight.judge({**FACTS, **facts}, Settings(), kind, LAYOUT, 3000, sources, False)
    return {finding.topic: finding for finding in found}


@pytest.mark.parametrize("kind,fact", [("docker", "image"), ("systemd", "venv")])
def test_what_is_there_already_takes_no_further_room(kind, fact):
    """An update of a bundle of some MB must not be refused for lack of the room that a first deployment takes."""
    assert judge(kind)["disk"].level == "bad"
    assert judge(kind, **{fact: "yes"})["disk"].level == "ok"
    assert judge(kind, **{fact: "yes", "STATE_free_kb": "1000"})["disk"].level == "bad"


def test_the_remedy_for_a_full_disk_names_what_fills_it():
    remedy = judge("docker")["disk"].remedy
    assert "--prune-old 0" in remedy and "images" in remedy and "docker system df" in remedy


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
    done = subprocess.run(
        ["sh", "-s"],
        input=script.replace("timeout 30 ", "timeout 1 "),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    facts = preflight.parse(done.stdout)
    assert facts["docker_works"] == "hangs" and facts["uid"] == str(os.getuid())
    found = judge("docker", docker_works="hangs")["docker"]
    assert found.level == "bad" and "30 s" in found.found


def test_what_systemd_needs_is_asked_before_minutes_of_work():
    """A Jetson as it comes asks for a password at sudo; a user's own systemd ends with the user's last login."""
    assert judge("systemd")["systemd"].level == "ok"
    found = judge("systemd", sudo="")["systemd"]
    assert found.level == "bad" and "/etc/sudoers.d/jetmask" in found.remedy
    found = judge("systemd-user")["systemd"]
    assert found.level == "bad" and "enable-linger" in found.remedy
    assert judge("systemd-user", sudo="", linger="yes")["systemd"].level == "ok"


@pytest.mark.skipif(bool(os.getuid()) or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.parametrize("password", [False, True])
def test_sudo_is_tried(password):
    script = preflight.script(Layout("/nowhere/root", "/nowhere/state", "x"), "python3", "docker")
    with tempfile.TemporaryDirectory() as folder:  # that another user may enter
        os.chmod(folder, 0o755)
        for name, text in (
            ("sudo", "exit 1" if password else 'test "$1" = -n && shift && exec "$@"'),
            ("systemctl", "test $* = --version"),
        ):
            path = os.path.join(folder, name)
            with open(path, "w") as file:
                file.write(f"#!/bin/sh\n{text}\n")
            os.chmod(path, 0o755)
        done = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-s"],
            input=f"PATH={folder}:$PATH\ncd /\n" + script,
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
    assert preflight.parse(done.stdout)["sudo"] == ("" if password else "yes"), done.stderr
