"""What a device is asked before anything is sent, and how it is judged."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from pipeline.deploy import cameras, preflight, provision
from pipeline.deploy.layout import Layout, container_flags
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


NANO = {
    "release": "# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t210ref, EABI: aarch64",
    "tensorrt": "8.2.1.8",
    "docker_runtimes": '{"nvidia":{}}',
    "docker_default": "nvidia",
}


def test_what_a_stock_image_lacks_for_a_venv_is_one_line_for_apt():
    found = judge("systemd", **NANO)["packages"]
    assert found.level == "bad"
    for what in ("venv", "Python.h", "g++", "nvcc"):
        assert what in found.found
    assert "sudo apt-get install python3-venv python3-dev g++ cuda-toolkit-10-2" in found.remedy


@pytest.mark.parametrize(
    "facts",
    [
        {"venv_module": "yes", "headers": "yes", "gpp": "/usr/bin/g++", "nvcc": "/usr/local/cuda/bin/nvcc"},
        {"venv_module": "yes", "pycuda_primary": "yes"},
        {"venv_module": "yes", "pycuda_wheel": "yes"},  # compiled for an earlier release, and kept
        {"venv": "yes"},
    ],
)
def test_nothing_is_asked_for_that_is_not_needed(facts):
    assert "packages" not in judge("systemd", **NANO, **facts)


def test_a_pycuda_that_is_too_old_must_be_compiled_anew():
    found = judge("systemd", **NANO, pycuda="2019.1.2", venv_module="yes")
    assert found["packages"].level == "bad" and "python3-dev" in found["packages"].remedy


CAMERAS = {
    "cameras": "/dev/video0 /dev/video1",
    "camera_names": "/dev/video0=vi-output, imx219 7-0010;/dev/video1=C270;",
}


def test_the_raw_node_of_a_csi_sensor_is_no_webcam():
    found = judge("docker", ["/dev/video0"], **NANO, **CAMERAS)["camera"]
    assert found.level == "bad" and "imx219" in found.found and found.remedy == "--source csi://0"
    assert judge("docker", ["/dev/video1"], **NANO, **CAMERAS)["camera"].level == "ok"


def test_whoever_names_no_source_is_shown_what_is_there():
    told = cameras.ask_for_source({**FACTS, **CAMERAS})
    assert told.exit_code == 2 and "--source csi://0 (vi-output, imx219" in told.remedy
    assert "--source /dev/video1 (C270)" in told.remedy and "--source /dev/video0" not in told.remedy
    assert "synthetic://" in cameras.ask_for_source(FACTS).remedy


@pytest.mark.parametrize(
    "version, release, flag",
    [
        ("0.11.0+jetpack", NANO["release"], True),
        ("1.10.0-1", NANO["release"], True),
        ("0.10.0+jetpack", NANO["release"], False),
        ("", NANO["release"], False),
        ("1.14.0-1", NANO["release"].replace("R32", "R36"), False),
    ],
)
def test_a_container_on_jetpack_4_gets_cuda_from_a_libnvidia_container_that_hides_it(version, release, flag):
    facts = {"uid": "1000", "gid": "1000", "nvidia_container": version, "release": release}
    words = container_flags(LAYOUT, facts, ["csi://0", "csi://1"], True)
    assert ("NVIDIA_REQUIRE_JETPACK=csv-mounts=all" in words) is flag
    assert words.count("/tmp:/run/host-tmp:ro") == 1 and not any("argus_socket" in word for word in words)
    assert "NVIDIA_REQUIRE_JETPACK=csv-mounts=all" not in container_flags(LAYOUT, facts, [], False)


def test_the_probe_asks_what_it_is_judged_by(tmp_path):
    """Every fact that judge() reads is one that the script tells, on this very machine."""
    node = tmp_path / "video4linux" / "video3"
    node.mkdir(parents=True)
    (node / "name").write_text("vi-output, imx219 7-0010\n")
    text = preflight.script(LAYOUT._replace(root=str(tmp_path), state=str(tmp_path)), sys.executable, "docker")
    text = text.replace("/sys/class/video4linux", str(tmp_path / "video4linux"))
    done = subprocess.run(["sh", "-s"], input=text, capture_output=True, text=True, check=True)
    facts = preflight.parse(done.stdout)
    assert facts["venv_module"] == "yes" and facts["pycuda_wheel"] == ""
    assert set(facts) >= {"headers", "gpp", "nvcc", "pycuda", "pycuda_primary", "nvidia_container", "venv"}
    assert cameras.camera_names(facts) == {"/dev/video3": "vi-output, imx219 7-0010"}


def test_a_pycuda_that_was_compiled_once_is_kept_and_reused(tmp_path):
    """A python that has no pycuda, whose pip compiles a wheel into -w and installs what it is given."""
    log = tmp_path / "log"
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
case "$*" in
    *retain_primary_context*) exit 1 ;;
    *version_info*) echo py36 ;;
    *"pip wheel"*) echo wheel >>{log}; while [ "$1" != -w ]; do shift; done; echo x >"$2/pycuda-2022.1-cp36.whl" ;;
    *"pip install"*) echo "install $*" >>{log} ;;
esac
"""
    )
    python.chmod(0o755)
    pins = tmp_path / "pins.txt"
    pins.write_text("pycuda==2022.1\n")
    for _ in range(2):  # as two releases of the package do, each into a venv of its own
        lines = provision.pycuda_lines(str(python), str(pins), str(tmp_path / "wheels"), "")
        subprocess.run(["sh", "-c", "set -e\n" + lines], check=True)
    said = log.read_text().splitlines()
    assert [line.split()[0] for line in said] == ["wheel", "install", "install"]
    assert all("--no-index" in line and line.endswith("pycuda-2022.1-cp36.whl") for line in said[1:])
    pins.write_text("pycuda==2022.2\n")
    lines = provision.pycuda_lines(str(python), str(pins), str(tmp_path / "wheels"), "")
    subprocess.run(["sh", "-c", "set -e\n" + lines], check=True)
    assert log.read_text().splitlines()[3] == "wheel", "other pins, another wheel"
