"""The GPU as a program sees it, and docker, which hands it on."""

import ctypes
import os
import re
import shutil
import sys
from typing import List, Optional, Tuple

from jetson.doctor.finding import Finding, output_of, text_of
from jetson.doctor.machine import in_container, l4t_release
from jetson.doctor.software import STATIC_TLS, import_of, preload
from jetson.engine.cuda import INSTALL_PYCUDA, PYCUDA_SINCE
from jetson.errors import JetmaskError

GPU_FLAGS = "--runtime nvidia"
CSV_FLAG = "-e NVIDIA_REQUIRE_JETPACK=csv-mounts=all"


def _library(names: List[str]) -> Tuple[Optional[str], str]:
    reason = ""
    for name in names:
        try:
            ctypes.CDLL(name)
            return name, ""
        except OSError as error:
            reason = str(error)
    return None, reason


def gpu(root: str = "/") -> List[Finding]:
    """The GPU as a program sees it: driver, TensorRT, pycuda. Names the missing library and the flag that brings it."""
    # Docker hides the device tree, so the image says itself that it was built for a GPU.
    jetson_board = (
        os.environ.get("JETMASK_EXPECT_GPU") == "1"
        or l4t_release(root) is not None
        or "Jetson" in (text_of(root, "/proc/device-tree/model") or "")
    )
    missing_level = "bad" if jetson_board else "info"
    flag = ""
    if in_container(root):
        flag = (
            f"start the container with {GPU_FLAGS} (JetPack 4 with libnvidia-container 0.11 or later: also {CSV_FLAG})"
        )
    found = []
    driver, reason = _library(["libcuda.so.1"])
    if driver is None:
        return [
            Finding(
                missing_level,
                "gpu",
                "CUDA is not visible: " + reason,
                flag
                or (
                    "install NVIDIA's L4T packages (nvidia-l4t-cuda)"
                    if jetson_board
                    else "without an NVIDIA GPU the onnxruntime variants are used"
                ),
            )
        ]
    try:
        from jetson.engine import cuda

        device = cuda.gpu()
        found.append(Finding("ok", "gpu", "{}, compute capability {}.{}".format(device.name, *device.capability), ""))
    except ImportError as error:
        found.append(Finding("info", "gpu", f"{driver} loads; the GPU was not queried ({error})", ""))
    except JetmaskError as error:
        found.append(Finding(missing_level, "gpu", str(error.what), flag or str(error.remedy)))
    nvinfer, reason = _library(["libnvinfer.so", "libnvinfer.so.8", "libnvinfer.so.10"])
    if nvinfer is None:
        found.append(
            Finding(
                "warn" if jetson_board else "info",
                "tensorrt",
                "not visible: " + reason,
                flag or "sudo apt-get install tensorrt python3-libnvinfer",
            )
        )
    version = output_of([sys.executable, "-c", "import tensorrt; print(tensorrt.__version__)"])
    if version:
        number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        found.append(
            Finding(
                "ok" if number >= (8, 2) else "bad",
                "tensorrt",
                version.strip(),
                "" if number >= (8, 2) else "TensorRT 8.2 or later is needed: JetPack 4.6.1",
            )
        )
    elif nvinfer:
        found.append(
            Finding(
                "warn",
                "tensorrt",
                "the library is there, its Python module is not",
                "sudo apt-get install python3-libnvinfer; in a venv: --system-site-packages",
            )
        )
    if version:
        found += _pycuda()
    return found


def _pycuda() -> List[Finding]:
    version, why = import_of("pycuda.driver")
    if version is None:
        remedy = preload(why) if STATIC_TLS in why else "use the container, or: " + INSTALL_PYCUDA
        return [Finding("warn", "pycuda", f"no TensorRT engine can run: it cannot be imported ({why})", remedy)]
    # By what it has, as jetson.engine.cuda does.
    old = "import pycuda, pycuda.driver as d\nif not hasattr(d.Device, 'retain_primary_context'): print(pycuda.VERSION)"
    answer = (output_of([sys.executable, "-c", old]) or "").strip()
    if answer:
        number = ".".join(re.findall(r"\d+", answer))
        return [
            Finding(
                "warn",
                "pycuda",
                f"no TensorRT engine can run: {number} is older than {PYCUDA_SINCE}",
                "use the container, or: " + INSTALL_PYCUDA,
            )
        ]
    return []


def docker(root: str = "/") -> List[Finding]:
    """Docker and its NVIDIA runtime; asked on the device itself, not in a container."""
    if in_container(root):
        return [Finding("info", "docker", "this runs inside a container", "")]
    if shutil.which("docker") is None:
        return [
            Finding(
                "info",
                "docker",
                "not installed",
                "deploy with --no-container, or: sudo apt-get install docker.io nvidia-docker2",
            )
        ]
    text = output_of(["docker", "info", "--format", "{{json .Runtimes}} {{.DefaultRuntime}}"])
    if text is None:
        return [
            Finding(
                "warn",
                "docker",
                "installed, but this user may not use it",
                "sudo usermod -aG docker $USER, then log in again",
            )
        ]
    runtimes_text, _, default = text.strip().rpartition(" ")
    if "nvidia" not in runtimes_text:
        return [
            Finding(
                "warn",
                "docker",
                "no nvidia runtime: a container would see no GPU",
                "sudo apt-get install nvidia-docker2 && sudo systemctl restart docker",
            )
        ]
    if default != "nvidia":
        return [
            Finding(
                "info",
                "docker",
                "nvidia runtime there, but not the default: `docker build` sees no CUDA",
                'set "default-runtime": "nvidia" in /etc/docker/daemon.json to build the image here',
            )
        ]
    return [Finding("ok", "docker", "with the nvidia runtime as default", "")]
