"""`jetmask first-light` against the stand-in Jetson, in its container and without one."""

import os
import subprocess
import sys

import machine
import nano
import pytest
import stand_ins

from jetson import files
from jetson.firstlight.cli import NAMES
from pipeline.firstlight import trial

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(nano.why_not()), reason=f"not here: {nano.why_not()}")]


def _pycuda():
    """(the driver that it was built against, its folder) of a pycuda for the Python of the device."""
    done = subprocess.run(
        ["sh", os.path.join(machine.DOUBLES, "build_pycuda.sh"), nano.PYTHON, machine.cache()],
        capture_output=True,
        text=True,
        timeout=1500,
    )
    if done.returncode:
        pytest.skip("pycuda cannot be built here: " + done.stderr.strip().splitlines()[-1])
    made = done.stdout.strip().splitlines()[-1]
    return os.path.join(made, "lib"), os.path.join(made, "site")


@pytest.fixture(scope="module")
def jetson(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first-light")
    try:
        camera = stand_ins.v4l2_env(folder)
    except stand_ins.Missing as error:
        pytest.skip(str(error))
    library, site = _pycuda()
    found = nano.Nano(folder / "nano", site=site, LD_LIBRARY_PATH=library, **camera)
    yield found
    found.close()


def _first_light(jetson, out, *words):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "first-light", "device", "--ssh", f"-F {jetson.sshd.config}"]
        + ["--retries", "1", "--minutes", "0.05", "--out", str(out), *words],
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done, files.read_json(str(out)) if os.path.exists(out) else None


@pytest.mark.parametrize("way", [[], ["--no-container", "--use-python", "--rebuild"]], ids=["container", "venv"])
def test_the_whole_of_it(jetson, tiny_bundle, tmp_path, way):
    out = tmp_path / "nano.json"
    done, found = _first_light(jetson, out, "--bundle", tiny_bundle, *way)
    steps = {step["step"]: step for step in (found or {"steps": []})["steps"]}
    assert tuple(steps) == NAMES, done.stderr
    assert done.returncode in (0, 5), done.stderr
    # The stand-in is no Nano: its time is not what was predicted for one. All else goes as on a device.
    assert {name: step["status"] for name, step in steps.items() if name != "latency"} == dict.fromkeys(
        [name for name in NAMES if name != "latency"], "pass"
    ), done.stderr
    assert "L4T r32.7.1" in steps["board"]["what"] and steps["board"]["measured"]["l4t"] == "32.7.1"
    assert steps["camera"]["measured"]["modes"][0]["frame_wh"] == [640, 480]
    assert {row["runtime"] for row in steps["golden"]["measured"]["tests"]} == {"tensorrt", "onnxruntime"}
    guess = steps["latency"]["measured"]["latency"][0]["predicted"]
    assert guess["target"] == "nano" and guess["latency_ms"] > 0
    assert "[6/6] first light" in done.stderr and "| [1/8] board (stand-in)" in done.stderr
    text = (tmp_path / "nano.txt").read_text()
    assert text.count("(stand-in)") == len(NAMES) and "nothing about a Jetson" in text and text.strip() in done.stdout
    everything = text + out.read_text()
    for secret in (jetson.sshd.home, "127.0.0.1", os.uname().nodename + "\n"):
        assert secret not in everything
    # Nothing was switched, nothing is left but the bundle, the package and the engines.
    assert jetson.store.link("current") is None and jetson.containers() == {}
    assert not [name for name in os.listdir(os.path.join(jetson.state, "incoming")) if "first-light" in name]


def test_a_step_that_fails_comes_home_too(jetson, tiny_bundle, tmp_path):
    words = ["--bundle", tiny_bundle, "--source", "/dev/video0", "--only", "board,golden,latency"]
    done, found = _first_light(jetson, tmp_path / "r.json", *words, "--predict-for", "nano")
    assert done.returncode == 0 and found["ok"], done.stderr
    done, found = _first_light(
        jetson, tmp_path / "r.json", "--bundle", tiny_bundle, "--only", "camera", "--no-container", "--use-python",
        "--source", "/dev/video7",
    )  # fmt: skip
    assert done.returncode == 5 and found["ok"] is False and "fail" in done.stdout
    assert "cannot be opened" in found["steps"][0]["what"]


def test_a_runner_that_holds_the_camera_is_named(jetson, tiny_bundle, tmp_path):
    done = jetson.deploy(tiny_bundle, "device", "--no-gpu", "--no-bench", "--no-engines")
    assert done.returncode == 0, done.stderr
    done, found = _first_light(jetson, tmp_path / "r.json", "--bundle", tiny_bundle, "--only", "board")
    assert done.returncode == 2 and found is None and "docker stop jetmask" in done.stderr
    jetson.sshd.run("docker rm -f jetmask")


def test_a_dry_run_changes_nothing(jetson, tiny_bundle, tmp_path):
    listing = "find /opt/jetmask /var/lib/jetmask 2>&1 | sort"
    before = jetson.sshd.run(listing)
    done, found = _first_light(jetson, tmp_path / "r.json", "--bundle", tiny_bundle, "--dry-run")
    assert done.returncode == 0 and found is None and "first-light" in done.stdout, done.stderr
    assert jetson.sshd.run(listing) == before


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "x"],
        ["--minutes", "inf"],
        ["--predict-for", "toaster"],
        ["--out", "/no/such/x.json"],
        ["--state", "here"],
        ["--bild-arg", "a"],
    ],
)
def test_slips_are_told_before_the_device_is_asked(jetson, tmp_path, words):
    done, found = _first_light(jetson, tmp_path / "r.json", *words)
    assert done.returncode == 2 and found is None and "[1/" not in done.stderr


def test_the_board_is_known_by_its_name_or_its_chip():
    for facts, kind in (
        ({"model": "NVIDIA Jetson Nano Developer Kit"}, "nano"),
        ({"release": nano.RELEASE}, "nano"),
        ({"model": "NVIDIA Jetson Orin Nano Developer Kit"}, "orin-nano"),
        ({"model": "NVIDIA Jetson Xavier NX Developer Kit"}, "xavier-nx"),
        ({"model": "Raspberry Pi 4"}, None),
        ({}, None),
    ):
        assert trial.target_of(facts) == kind
