"""Dockerfile.l4t, really executed on a stand-in base; the image serves, without root and with a read-only system.

The base is a Debian whose python3 is a real Python 3.6, so the JetPack 4 arguments are what is built, pycuda included:
CUDA's headers are NVIDIA's, its driver the stand-in. The JetPack 6 arguments are built on an arm64 Debian by emulation,
without a GPU. NVIDIA's own base image, its mounted libraries and the GPU are not in these tests.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from contextlib import suppress

import debian
import numpy as np
import pytest
from sshd import free_port

from jetson import files
from jetson.bundle import manifest
from jetson.inference.detector import open_detector

_TOOLS = ("buildah", "podman", "unshare")
needs_tools = pytest.mark.skipif(bool(debian.missing(*_TOOLS)), reason=f"not here: {debian.missing(*_TOOLS)}")
BASE, IMAGE = "localhost/jetmask-test-base:r32.7.1", "localhost/jetmask-test:r32.7"
# podman as root in a sandbox: no cgroups to manage, and limits that may not be raised.
_IN_CGROUP2 = [
    "unshare",
    "-m",
    "--propagation",
    "private",
    "sh",
    "-c",
    'umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"',
    "sh",
]


def test_the_dockerfile_is_clean(root):
    tool = shutil.which("hadolint") or os.path.join(os.path.dirname(sys.executable), "hadolint")
    if not os.path.exists(tool):
        pytest.skip("hadolint is not installed here")
    done = subprocess.run([tool, os.path.join(root, "Dockerfile.l4t")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_shell_scripts_are_clean(root):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed here")
    scripts = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(os.path.join(root, "tests"))
        for name in names
        if name.endswith(".sh")
    ] + [os.path.join(root, ".ci", "run")]
    # -nt is in every sh there is; the words that are split are meant to be.
    done = subprocess.run(
        ["shellcheck", "-S", "warning", "-e", "SC3013,SC2046", *scripts], capture_output=True, text=True
    )
    assert len(scripts) > 4 and done.returncode == 0, done.stdout


def test_pinned_modules_have_hashes_and_match_what_is_tested(root):
    lists = {}
    for name in sorted(os.listdir(os.path.join(root, "jetson"))):
        if name.startswith("requirements-"):
            with open(os.path.join(root, "jetson", name)) as file:
                lines = [line.rstrip("\\\n ") for line in file if not line.startswith("#")]
            pins = [line for line in lines if "==" in line and not line.startswith(" ")]
            assert pins and len([line for line in lines if "--hash=sha256:" in line]) >= len(pins), name
            lists[name] = dict(pin.split("==") for pin in pins)
    assert len(lists) == 6
    with open(os.path.join(root, "tests", "requirements-python36.lock")) as file:
        tested = dict(
            line.split(";")[0].strip(" \\\n").split("==")
            for line in file
            if "==" in line and not line.startswith(("#", " "))
        )
    for name in ("numpy", "opencv-python-headless", "onnxruntime"):
        assert lists["requirements-jetpack4.txt"][name] == tested[name]


def test_compose_asks_for_no_more_than_it_needs(root):
    import yaml

    with open(os.path.join(root, "compose.yaml")) as file:
        service = yaml.safe_load(file)["services"]["jetmask"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"] and service["runtime"] == "nvidia"
    assert not service["user"].startswith(("0", "root"))
    # The health check asks where the runner listens, and what deploy can say can be said here.
    assert service["environment"]["JETMASK_HOST"] == "${JETMASK_HOST:-127.0.0.1}" in service["command"]
    assert "${JETMASK_SOURCES:---source csi://0}" in service["command"] and "${JETMASK_SERVE_ARGS" in service["command"]
    assert "/tmp:/run/host-tmp:ro" in service["volumes"]
    assert not any("argus_socket" in volume for volume in service["volumes"])


class Images:
    """buildah and podman on a storage of their own."""

    def __init__(self, folder):
        self.folder = str(folder)
        conf = os.path.join(self.folder, "storage.conf")
        with open(conf, "w") as file:
            file.write(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n')
        self.environment = dict(os.environ, CONTAINERS_STORAGE_CONF=conf)

    def call(self, *words, check=True, **options):
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, **options)
        assert not check or done.returncode == 0, done.stderr[-3000:]
        return done

    def running(self, *words):
        """The words of `podman run` with what the image is meant to be run with."""
        return [
            *_IN_CGROUP2,
            "podman",
            "run",
            "--rm",
            "--no-healthcheck",
            "--cgroups=disabled",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            "--network",
            "host",
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            *words,
        ]

    def base(self, name, system, *words):
        """Take the folder `system` as the image `name`; the folder is gone afterwards."""
        tar = subprocess.Popen(["tar", "-C", system, "-c", "."], stdout=subprocess.PIPE)
        self.call("podman", "import", *words, "-", name, stdin=tar.stdout)
        shutil.rmtree(system)

    def build(self, image, base, arguments, root, *words):
        """Execute Dockerfile.l4t."""
        line = [
            "buildah",
            "bud",
            "--isolation",
            "chroot",
            "--format",
            "docker",
            *words,
            "-f",
            "Dockerfile.l4t",
            "-t",
            image,
        ]
        for key, value in dict(arguments, BASE=base, VERSION="test").items():
            line += ["--build-arg", f"{key}={value}"]
        certificates = os.environ.get("PIP_CERT")
        if certificates:  # behind a proxy that signs with a certificate of its own
            with open(os.path.join(self.folder, "pip.conf"), "w") as file:
                file.write("[global]\ncert = /etc/ssl/certs/host.crt\n")
            line += [
                "-v",
                f"{self.folder}/pip.conf:/etc/pip.conf:ro",
                "-v",
                f"{certificates}:/etc/ssl/certs/host.crt:ro",
            ]
        self.call(*line, ".", cwd=root)
        # What the image weighs, for those who read the output (-s).
        size = json.loads(self.call("podman", "inspect", image).stdout)[0]["Size"]
        layers = self.call("podman", "history", "--format", "{{.Size}} {{.CreatedBy}}", image).stdout
        print(f"{image}: {size} bytes\n{layers}")

    def outputs(self, image, bundle, *words):
        """{output: values} of the tiny model in a container, for an input that both sides can make."""
        done = self.call(*self.running(*words, "-v", f"{bundle}:/b:ro", "--entrypoint", "python3", image, "-c", _CODE))
        return json.loads(done.stdout.splitlines()[-1])


_CODE = (
    "import json, numpy as np; from jetson.inference.detector import open_detector; "
    "d = open_detector('/b', 't-320x192-fp32'); "
    "d.engine.input[:] = np.arange(3 * 192 * 320).reshape(1, 3, 192, 320) % 256; "
    "print(json.dumps({k: v.ravel().tolist() for k, v in d.infer().items()}))"
)


def _as_here(there, bundle):
    """Outputs from elsewhere against this machine's, within 1e-3."""
    with open_detector(bundle, "t-320x192-fp32") as detector:
        detector.engine.input[:] = np.arange(3 * 192 * 320).reshape(1, 3, 192, 320) % 256
        here = {name: value.ravel().copy() for name, value in detector.infer().items()}
    assert there.keys() == here.keys()
    for name, value in here.items():
        np.testing.assert_allclose(there[name], value, atol=1e-3)


def _cuda(folder, root):
    """A CUDA toolkit's headers (NVIDIA's, from its Python package) with the driver stand-in to link against."""
    doubles = os.path.join(root, "tests", "doubles", "fakecuda")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            "-d",
            folder + ".wheel",
            "nvidia-cuda-runtime-cu11==11.8.89",
        ],
        check=True,
    )
    (wheel,) = os.listdir(folder + ".wheel")
    with zipfile.ZipFile(os.path.join(folder + ".wheel", wheel)) as file:
        file.extractall(folder + ".wheel/x")
    shutil.copytree(folder + ".wheel/x/nvidia/cuda_runtime/include", os.path.join(folder, "include"))
    shutil.copy(os.path.join(doubles, "shim", "cudaProfiler.h"), os.path.join(folder, "include"))
    subprocess.run(
        [
            "sh",
            os.path.join(doubles, "build.sh"),
            os.path.join(folder, "lib64", "stubs"),
            os.path.join(folder, "include", "cuda.h"),
            os.path.join(folder, "include", "cudaProfiler.h"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        env=dict(os.environ, PYTHON=sys.executable),
    )
    shutil.rmtree(folder + ".wheel")


@pytest.fixture(scope="module")
def images(tmp_path_factory, root):
    """The image, built by Dockerfile.l4t with the arguments for JetPack 4, pycuda compiled."""
    folder = tmp_path_factory.mktemp("images")
    system = str(folder / "base")
    debian.make(system, ("python3-pip",))
    os.makedirs(system + "/usr/local/cuda")
    _cuda(system + "/usr/local/cuda", root)
    found = Images(folder)
    found.base(BASE, system)
    found.build(IMAGE, BASE, {"JETPACK": "4", "GPU": "1"}, root)
    yield found
    found.call("podman", "rmi", "-a", "-f", check=False)


@pytest.mark.full
@needs_tools
def test_the_image_is_what_it_claims(images):
    facts = json.loads(images.call("podman", "inspect", IMAGE).stdout)[0]
    config = facts["Config"]
    assert config["User"] == "10001" and config["Labels"]["org.opencontainers.image.version"] == "test"
    assert "/var/lib/jetmask" in config["Volumes"] and config["StopSignal"] in ("SIGTERM", "15")
    assert "OPENBLAS_CORETYPE=ARMV8" in config["Env"]
    # podman has moved this key about: below Config, or beside it.
    health = config.get("Healthcheck") or facts.get("Healthcheck") or facts["HealthCheck"]
    assert health["Test"] == ["CMD", "python3", "-m", "jetson.container", "health"]
    look = images.call(
        *images.running(
            "--entrypoint",
            "sh",
            IMAGE,
            "-c",
            "id -u; python3 -V; ls /tools /requirements 2>&1; touch /x 2>&1; "
            "command -v gcc g++ nvcc; gst-inspect-1.0 h264parse | head -n 1",
        )
    ).stdout
    assert look.startswith("10001\nPython 3.6") and "Read-only file system" in look
    assert "/gcc" not in look and "No such file" in look and "Factory Details" in look


@pytest.mark.full
@needs_tools
def test_the_image_finds_the_same_faces_as_this_machine(images, tiny_bundle):
    done = images.call(*images.running("-v", f"{tiny_bundle}:/b:ro", IMAGE, "verify", "/b", "--self-test", "--json"))
    assert json.loads(done.stdout)["self_test"]["differences"] == []
    _as_here(images.outputs(IMAGE, tiny_bundle), tiny_bundle)


@pytest.mark.full
@needs_tools
def test_the_images_pycuda_runs_on_a_driver_that_is_mounted(images):
    """JetPack 4 mounts the driver when the container starts; here the stand-in's. Nothing else is needed from CUDA."""
    code = "import pycuda.driver as d; d.init(); print(d.Device(0).name())"
    done = images.call(*images.running("--entrypoint", "python3", IMAGE, "-c", code), check=False)
    assert done.returncode == 1 and "libcuda.so.1" in done.stderr
    done = images.call(
        *images.running(
            "-e",
            "LD_LIBRARY_PATH=/usr/local/cuda/lib64/stubs",
            "-e",
            "FAKECUDA_NAME=X1",
            "--entrypoint",
            "python3",
            IMAGE,
            "-c",
            code,
        )
    )
    assert done.stdout == "X1\n"


@pytest.mark.full
@pytest.mark.skipif(bool(debian.missing(*_TOOLS, "qemu-aarch64-static")), reason="needs root and qemu-user-static")
def test_the_arguments_for_jetpack_6_on_emulated_arm64(tmp_path, tiny_bundle, root):
    if not os.path.exists("/proc/sys/fs/binfmt_misc/qemu-aarch64"):
        pytest.skip("no emulation of arm64: mount binfmt_misc, then update-binfmts --enable qemu-aarch64")
    found = Images(tmp_path)
    base, image = "localhost/jetmask-test-base:r36", "localhost/jetmask-test:r36"
    debian.make_arm64(str(tmp_path / "base"), ("python3-pip",))
    try:
        found.base(base, str(tmp_path / "base"), "--arch", "arm64")
        found.build(image, base, {"JETPACK": "6", "GPU": "0"}, root, "--platform", "linux/arm64")
        assert json.loads(found.call("podman", "inspect", image).stdout)[0]["Architecture"] == "arm64"
        _as_here(found.outputs(image, tiny_bundle), tiny_bundle)
    finally:
        found.call("podman", "rmi", "-a", "-f", check=False)


@pytest.mark.full
@needs_tools
def test_the_runner_serves_from_the_container_and_stops_when_told(images, tiny_bundle, tmp_path):
    state = tmp_path / "state"
    bundles = state / "bundles"
    bundles.mkdir(parents=True)
    digest = files.sha256(os.path.join(tiny_bundle, manifest.SUMS))
    shutil.copytree(tiny_bundle, str(bundles / digest))
    os.symlink(f"bundles/{digest}", str(state / "current"))
    subprocess.run(["chown", "-R", "10001:10001", str(state)], check=True)
    port = free_port()
    process = subprocess.Popen(
        images.running(
            "-e",
            f"JETMASK_PORT={port}",
            "-v",
            f"{state}:/var/lib/jetmask",
            IMAGE,
            "serve",
            "/var/lib/jetmask/current",
            "--source",
            "synthetic://",
            "--port",
            str(port),
        ),
        env=images.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 90
        answer = None
        while answer is None and time.monotonic() < end and process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as reply:
                answer = json.load(reply)
            time.sleep(0.2)
        assert answer and answer["ok"] is True
        health = images.call(*images.running("-e", f"JETMASK_PORT={port}", IMAGE, "health"), check=False)
        assert health.returncode == 0
    finally:
        process.terminate()
        process.wait(30)
    health = images.call(*images.running("-e", f"JETMASK_PORT={port}", IMAGE, "health"), check=False)
    assert health.returncode == 1


@pytest.mark.full
@needs_tools
def test_the_start_up_probe_names_the_missing_library_and_the_flag(images, tiny_bundle):
    done = images.call(
        *images.running("-e", "JETMASK_EXPECT_GPU=1", "-v", f"{tiny_bundle}:/b:ro", IMAGE, "bench", "/b", "--help")
    )
    assert "libcuda.so.1" in done.stderr and "--runtime nvidia" in done.stderr
