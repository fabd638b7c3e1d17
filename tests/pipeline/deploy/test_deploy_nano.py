"""`jetmask deploy` in its default way, with a container, on a stand-in Jetson; preflight, doctor and bench over ssh."""

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys

import nano
import pytest

from jetson import files
from jetson.bundle import manifest
from jetson.install import installer as install

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(nano.why_not()), reason=f"not here: {nano.why_not()}")]


@pytest.fixture(scope="module")
def jetson(tmp_path_factory):
    found = nano.Nano(tmp_path_factory.mktemp("nano"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def second(tiny_bundle, tmp_path_factory):
    """Another bundle: (folder, digest)."""
    path = str(tmp_path_factory.mktemp("second") / "bundle")
    shutil.copytree(tiny_bundle, path)
    document = files.read_json(os.path.join(path, "manifest.json"))
    files.write_json(os.path.join(path, "manifest.json"), dict(document, name="second"))
    manifest.write_sums(path)
    return path, install.root_digest(path)


def _jetmask(*words):
    return subprocess.run([sys.executable, "-m", "pipeline.cli", *words], capture_output=True, text=True, timeout=300)


def test_container_engines_status_logs_rollback_and_image_tar(jetson, tiny_bundle, second, tmp_path):
    digest = install.root_digest(tiny_bundle)
    done = jetson.deploy(tiny_bundle, "device", "--source", "/dev/video0", "--measured", str(tmp_path / "m.json"))
    assert done.returncode == 0, done.stderr
    assert jetson.store.link("current") == digest and jetson.running()["variant"]["runtime"] == "onnxruntime"
    assert "Step 3/3" in done.stderr and ": building (" in done.stderr, "progress is shown here"
    # FP16 is tried first on a GPU; TensorRT does not work in this container, and the device is served all the same.
    assert "t-416x256-fp16 does not work there" in done.stderr and "t-416x256-fp32 will run instead" in done.stderr
    assert jetson.running()["variant"]["name"] == "t-416x256-fp32"
    rows = files.read_json(str(tmp_path / "m.json"))["rows"]
    assert rows and all(row["infer_ms"]["p50"] > 0 for row in rows if row["infer_ms"])

    container = jetson.containers()["jetmask"]
    flags = [tuple(pair) for pair in container["flags"]]
    for flag in (
        ("--runtime", "nvidia"),
        ("--device", "/dev/video0"),
        ("--group-add", "video"),
        ("--read-only", None),
        ("--cap-drop", "ALL"),
        ("--restart", "unless-stopped"),
        ("--log-opt", "max-size=10m"),
        ("-v", "/var/lib/jetmask:/var/lib/jetmask"),
    ):
        assert flag in flags
    image = container["words"][0]
    arguments = files.read_json(os.path.join(jetson.docker_folder, "images", image.replace(":", "@"), "arguments.json"))
    assert arguments["BASE"] == "nvcr.io/nvidia/l4t-base:r32.7.1" and arguments["JETPACK"] == "4"
    engines = os.path.join(jetson.state, "engines")
    assert stat.S_IMODE(os.stat(engines).st_mode) == 0o700
    assert sum(name.endswith(".plan") for name in os.listdir(engines)) == 1

    # Without internet: the image comes as a file. An older release's image is there, and one of somebody else's.
    tar = str(tmp_path / "image.tar")
    older = "jetmask:0.0.9-0123456789"
    jetson.sshd.run(f"docker tag {image} {older} && docker tag {image} jetmask:mine")
    jetson.sshd.run(
        f"docker tag {image} ours:1 && docker save -o {tar} ours:1 && docker rmi -f {image} && docker rmi ours:1"
    )
    done = jetson.deploy(second[0], "device", "--image-tar", tar, "--no-bench", "--json")
    assert done.returncode == 0 and "Step" not in done.stderr, done.stderr
    assert json.loads(done.stdout)["digest"] == second[1]
    assert json.loads(done.stdout)["removed"]["images"] == [older] and "1 image" in done.stderr
    left = os.listdir(os.path.join(jetson.docker_folder, "images"))
    now = jetson.containers()["jetmask"]["words"][0]
    assert {now.replace(":", "@"), "jetmask@mine"} <= set(left) and older.replace(":", "@") not in left
    assert (jetson.store.link("current"), jetson.store.link("previous")) == (second[1], digest)

    done = jetson.deploy("--status", "device")
    assert done.returncode == 0 and '"ok": true' in done.stdout and "docker" in done.stdout
    done = jetson.deploy("--logs", "device", "--lines", "50")
    assert done.returncode == 0 and "live page" in done.stdout
    done = jetson.deploy("--rollback", "device")
    assert done.returncode == 0 and digest[:16] in done.stdout, done.stderr
    assert jetson.store.link("current") == digest and jetson.running()
    assert ("--device", "/dev/video0") in [tuple(pair) for pair in jetson.containers()["jetmask"]["flags"]]
    done = jetson.deploy("--prune-old", "0", "device", "--json")
    assert json.loads(done.stdout)["removed"] == []
    done = jetson.deploy("--list", "device")
    assert digest[:16] in done.stdout and second[1][:16] in done.stdout

    # A service that docker refuses to start: back on the old one.
    done = jetson.deploy(second[0], "device", "--no-bench", "--serve-args=--no-such-option")
    assert done.returncode == 1 and "rolled back to bundle " + digest[:16] in done.stderr, done.stderr
    assert "unknown option --no-such-option" in done.stderr, "the container and its log are gone by now"
    assert jetson.store.link("current") == digest and jetson.running()


def test_bench_on_the_device_stands_beside_its_prediction_in_a_report(jetson, tiny_bundle, tmp_path):
    """The order of the tests in this file: something is deployed by now."""
    out = str(tmp_path / "device.json")
    ssh = ["--ssh", f"-F {jetson.sshd.config}"]
    done = _jetmask(
        "bench",
        "--device",
        "device",
        *ssh,
        "--variant",
        "t-320x192-fp32",
        "--seconds",
        "0.3",
        "--bundle",
        tiny_bundle,
        "--target",
        "nano",
        "--out",
        out,
    )
    assert done.returncode == 0, done.stderr
    assert "t-320x192-fp32" in done.stdout and "no row here is one that the model of nano covers" in done.stdout
    measured = files.read_json(out)
    # The stand-in ran ONNX Runtime; as if the same row had come from TensorRT, which the model of a Nano is about.
    row = next(row for row in measured["rows"] if row["infer_ms"])
    row.update(runtime="tensorrt")
    from pipeline.deploy import device_bench

    measured = device_bench.beside_predictions(measured, tiny_bundle, "nano")
    files.write_json(out, measured)
    run = tmp_path / "run"
    run.mkdir()
    files.write_json(str(run / "report.json"), {"title": "t"})
    done = _jetmask("report", str(run), "--device", out)
    assert done.returncode == 0, done.stderr
    page = (run / "report.html").read_text(encoding="utf-8")
    guess = row["predicted"]
    assert 'id="devices"' in page and f"{guess['off_percent']:+.1f} %" in page
    assert f"off by {abs(guess['off_percent']):.1f} % on average over 1 measured row" in page
    assert "t-320x192-fp32" in (run / "report.csv").read_text(encoding="utf-8")
    done = _jetmask("bench", "--device", "device", *ssh, "--source", "clip.mp4")
    assert done.returncode == 2 and "log in there" in done.stderr


@pytest.mark.parametrize(
    "change,words,code,finding,remedy",
    [
        ({}, [], 0, "x86_64, L4T r32.7.1, JetPack 4.6.1 or later", "ok    tensorrt           8.2.1"),
        (
            {"meminfo": nano.MEMINFO.replace("2800000", "300000")},
            [],
            4,
            "292 MiB available",
            "add swap, or --no-engines",
        ),
        (
            {"meminfo": nano.MEMINFO.replace("2800000", "300000")},
            ["--no-engines"],
            0,
            "warn  memory",
            "isolate multi-user",
        ),
        (
            {},
            ["--source", "/dev/video7"],
            4,
            "no /dev/video7 on the device, but /dev/video0",
            "give --source /dev/video0",
        ),
        ({}, ["--source", "csi://0"], 4, "no /tmp/argus_socket", "sudo systemctl restart nvargus-daemon"),
        ({}, ["--source", "/clips/none.mp4"], 4, "no /clips/none.mp4 on the device", "copy it there"),
        ({"date": "echo 86400"}, [], 0, "days off", "sudo timedatectl set-ntp true"),
        ({"dpkg-query": "exit 1"}, [], 4, "bad   tensorrt           not installed", "sudo apt-get install tensorrt"),
        ({"dpkg-query": "exit 1"}, ["--no-gpu"], 0, "ok    docker", None),
        ({"dpkg-query": "echo installed 8.0.1-1+cuda10.2"}, [], 4, "older than 8.2", "upgrade to JetPack 4.6.1"),
        ({"docker": "exit 1"}, [], 4, "may not use docker", "sudo usermod -aG docker $USER"),
        ({"docker": "echo '{\"runc\": {}}'"}, [], 4, "no nvidia runtime", "sudo apt-get install nvidia-docker2"),
        (
            {"docker": 'case "$*" in *Default*) echo runc;; image*) exit 1;; *) echo nvidia;; esac'},
            [],
            4,
            "default runtime is not nvidia",
            '"default-runtime": "nvidia"',
        ),
        ({"df": "printf 'head\\nfs 1 1 1024 1 /\\n'"}, [], 4, "1 MiB free", "--prune-old 0"),
        ({}, ["--no-container"], 4, "systemd does not run there", "--service process"),
        ({}, ["--no-container", "--service", "process"], 4, "has no module tensorrt", "python3-libnvinfer"),
    ],
)
def test_preflight(jetson, tiny_bundle, change, words, code, finding, remedy):
    """Each finding with what to do; stopped by --root before anything is changed on the device."""
    programs = {name: script for name, script in change.items() if name != "meminfo"}
    kept = {}
    for name, script in programs.items():
        path = os.path.join(jetson.folder, "bin", name)
        kept[name] = None
        if os.path.exists(path):
            with open(path) as file:
                kept[name] = file.read()
        jetson.program(name, script)
    jetson.set(meminfo=change.get("meminfo", nano.MEMINFO))
    try:
        # A root that cannot be written ends every one of these at its preflight.
        options = [word for word in jetson.options if word not in ("--source", nano.SOURCE)]
        if "--source" not in words:
            options += ["--source", nano.SOURCE]
        done = jetson.deploy(tiny_bundle, "device", *words, "--root", "/proc/nothing", options=options)
    finally:
        jetson.set(meminfo=nano.MEMINFO)
        for name, text in kept.items():
            path = os.path.join(jetson.folder, "bin", name)
            if text is None:
                os.unlink(path)
            else:
                files.write_text(path, text)
                os.chmod(path, 0o755)
    assert done.returncode == 4 and "Traceback" not in done.stderr
    before, _, bad = done.stderr.partition("the device is not ready")
    text = bad if code == 4 else before
    assert finding in text, done.stderr
    if remedy is not None:
        assert remedy in text


def test_doctor_on_the_device(jetson, tiny_bundle):
    code = jetson.sshd.run("ls -d /opt/jetmask/[0-9]*").split()[0]
    done = subprocess.run(
        ["ssh", "-F", jetson.sshd.config, "device", f"cd {shlex.quote(code)} && python3 -m jetson doctor --json"],
        capture_output=True,
        text=True,
    )
    answer = json.loads(done.stdout)
    found = {finding["topic"]: finding for finding in answer["findings"]}
    assert "L4T r32.7.1" in found["board"]["found"] and found["docker"]["level"] in ("ok", "info")
    assert found["camera"]["found"] == "/dev/video0" and "nvargus-daemon" in found["csi"]["remedy"]
    assert "2.7 GiB available" in found["memory"]["found"]
    assert found["bundle"]["level"] == "ok" and "clock" in found and "disk" in found
    # What is missing on this stand-in is named, each with what to do.
    assert "python3 -m pip install 'pycuda" in found["pycuda"]["remedy"]


def test_a_dry_run_names_every_command_of_a_container_deployment(jetson, tiny_bundle):
    done = jetson.deploy(
        tiny_bundle, "device", "--dry-run", "--image-tar", "jetmask.tar", "--key", "k.pub", "--no-bench", options=[]
    )
    assert done.returncode == 3 and "k.pub" in done.stderr
    listing = "find /opt/jetmask /var/lib/jetmask 2>&1 | sort"
    before = jetson.sshd.run(listing)
    done = jetson.deploy(tiny_bundle, "device", "--dry-run", "--image-tar", "jetmask.tar", options=[])
    assert done.returncode == 0, done.stderr
    for word in (
        "sh -s",
        "rsync",
        "docker load -i",
        "docker tag",
        "install",
        "--stage",
        " build ",
        "verify",
        "bench",
        "--activate",
        '"unless-stopped"',
        "--prune-old 0",
    ):
        assert word in done.stdout, word
    for verb, word in (
        (["--status"], "--status"),
        (["--rollback"], "--activate PREVIOUS"),
        (["--logs"], "--logs"),
        (["--prune-old", "2"], "--prune-old 2 --root /opt/jetmask"),
    ):
        done = jetson.deploy(*verb, "device", "--dry-run", options=[])
        assert done.returncode == 0 and "ssh device" in done.stdout and word in done.stdout
    assert jetson.sshd.run(listing) == before


@pytest.mark.full
@pytest.mark.skipif("JETMASK_PYTHON36" not in os.environ, reason="the pinned modules are those of a Python 3.6")
def test_without_a_container_a_venv_and_a_systemd_unit(tiny_bundle, second, tmp_path):
    """The venv is really made, from a package index; systemd is a stand-in (the unit is booted in test_systemd)."""
    jetson = nano.Nano(tmp_path)
    try:
        jetson.sshd.run("mkdir -p /run/systemd/system")
        words = ["--no-container", "--no-gpu", "--no-bench"]
        done = jetson.deploy(tiny_bundle, "device", *words, "--json")
        assert done.returncode == 0, done.stderr
        assert "ok    systemd" in done.stderr
        first = json.loads(done.stdout)["times_s"]["prepare Python"]
        spec = jetson.store.service()
        assert spec["kind"] == "systemd" and "/venv-" in spec["start"][0]
        unit = jetson.sshd.run("cat /etc/systemd/system/jetmask.service")
        assert f"ExecStart={' '.join(spec['start'])}\n" in unit and "NoNewPrivileges=true" in unit
        assert jetson.running()["variant"]["runtime"] == "onnxruntime"
        versions = jetson.sshd.run(f"{spec['start'][0]} -m pip list --format freeze")
        assert "onnxruntime==1.10.0" in versions and "pip==21.3.1" in versions

        done = jetson.deploy(second[0], "device", *words, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["times_s"]["prepare Python"] < first, "the venv is made once"
        done = jetson.deploy("--status", "device")
        assert '"ok": true' in done.stdout and "systemd" in done.stdout
        assert "live page" in jetson.deploy("--logs", "device").stdout
        done = jetson.deploy("--rollback", "device")
        assert done.returncode == 0 and jetson.store.link("current") == install.root_digest(tiny_bundle)
        done = jetson.deploy(second[0], "device", *words, "--serve-args=--no-such-option")
        assert done.returncode == 1 and "back on" in done.stderr, done.stderr
        assert jetson.running() and jetson.store.link("current") == install.root_digest(tiny_bundle)
    finally:
        jetson.close()
