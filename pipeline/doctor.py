"""What this workstation has, what is missing, and what to do about it."""

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys

from jetson import doctor
from jetson.bundle import manifest
from jetson.doctor import Finding

# What is installed -> what it is needed for, and the extra that brings it.
_BASE = ("numpy", "opencv-python-headless", "onnxruntime")
_EXTRAS = (
    ("train", ("keras", "tensorflow-cpu", "tf2onnx", "onnx"), "train, prune and export"),
    ("train", ("ai-edge-litert",), "run LiteRT variants"),
    ("tensorrt", ("tensorrt", "pycuda"), "build TensorRT engines on an NVIDIA GPU here"),
    ("dev", ("cryptography",), "sign bundles"),
)
# Programs -> what they are needed for, and how to get them.
_PROGRAMS = (
    ("ssh", "deploy", "sudo apt-get install openssh-client"),
    ("rsync", "deploy", "sudo apt-get install rsync"),
    (
        "gst-launch-1.0",
        "cameras (without it OpenCV reads them)",
        "sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-plugins-bad",
    ),
)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def interpreter() -> list[Finding]:
    """Python, and what is installed beside it."""
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    found = [
        Finding("ok" if good else "bad", "python", platform.python_version(), "" if good else "use Python 3.11 to 3.13")
    ]
    for package in _BASE:
        version = _version(package) or (_version("opencv-python") if package.startswith("opencv") else None)
        found.append(
            Finding("ok" if version else "bad", package, version or "not installed", "" if version else "pip install .")
        )
    for extra, packages, purpose in _EXTRAS:
        absent = [
            package
            for package in packages
            if _version(package) is None and _version(package.removesuffix("-cpu")) is None
        ]
        found.append(
            Finding(
                "info" if absent else "ok",
                f"extra {extra}",
                f"not installed: {', '.join(absent)} (to {purpose})" if absent else f"complete: {', '.join(packages)}",
                f"pip install '.[{extra}]'" if absent else "",
            )
        )
    return found


def processor() -> list[Finding]:
    """The CPU, and whether int8 is fast and exact on it."""
    flags: set[str] = set()
    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):
                    flags.update(value.split())
                elif key.strip() == "model name":
                    model = value.strip()
    except OSError:
        pass
    found = [Finding("ok", "cpu", f"{model}, {len(os.sched_getaffinity(0))} cores usable", "")]
    vnni = {"avx512_vnni", "avx_vnni", "asimddp"} & flags
    if vnni:
        found.append(Finding("ok", "int8", f"fast and exact here ({', '.join(sorted(vnni))})", ""))
    elif platform.machine() == "x86_64":
        found.append(
            Finding(
                "warn",
                "int8",
                "no VNNI: int8 sums may saturate on this CPU",
                "int8-cpu variants use reduced-range weights; compare AP here, or use fp32",
            )
        )
    free = shutil.disk_usage(".").free
    found.append(
        Finding(
            "ok" if free > 5 << 30 else "warn",
            "disk",
            f"{free / 2**30:.1f} GiB free here",
            "" if free > 5 << 30 else "training and its tools need about 5 GiB",
        )
    )
    return found


def programs() -> list[Finding]:
    """Programs that some verbs call."""
    found = []
    for name, purpose, remedy in _PROGRAMS:
        path = shutil.which(name)
        found.append(
            Finding("ok" if path else "info", name, path or f"not there; needed for {purpose}", "" if path else remedy)
        )
    builder = next((name for name in ("docker", "podman", "buildah") if shutil.which(name)), None)
    found.append(
        Finding(
            "ok" if builder else "info", "images", builder or "no docker or podman: images are built on the device", ""
        )
    )
    return found


def data() -> list[Finding]:
    """The labelled photographs and the bundle that ships."""
    found = []
    folder = os.environ.get("JETMASK_DATA")
    if folder is None:
        found.append(
            Finding(
                "info",
                "data",
                "JETMASK_DATA is not set: `jetmask demo` draws its own pictures",
                "export JETMASK_DATA=DIR, a folder with train/, val/ and test/",
            )
        )
    else:
        absent = [
            name
            for name in ("train", "val", "test")
            if not os.path.isfile(os.path.join(folder, name, "annotations.json"))
        ]
        found.append(
            Finding(
                "warn" if absent else "ok",
                "data",
                f"{folder}: "
                + ("no annotations.json in " + ", ".join(absent) if absent else "train, val and test are there"),
                "jetmask data import" if absent else "",
            )
        )
    shipped = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(doctor.__file__))), "models")
    if os.path.isdir(shipped):
        wrong = manifest.check(shipped)
        found.append(
            Finding(
                "bad" if wrong else "ok",
                "shipped bundle",
                wrong[0] if wrong else f"{len(manifest.load(shipped).variants)} variants, whole",
                "git checkout jetson/models" if wrong else "",
            )
        )
    else:
        found.append(Finding("warn", "shipped bundle", f"not at {shipped}", "install jetmask again"))
    return found


def findings() -> list[Finding]:
    """Everything about this workstation."""
    return interpreter() + processor() + doctor.gpu() + doctor.runtimes() + programs() + data() + doctor.clock()


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask doctor`."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.epilog = "example: jetmask doctor\nOn the device: python3 -m jetson doctor"


def command(args: argparse.Namespace) -> int:
    """Say what this workstation has and lacks."""
    return doctor.answer(findings(), args.json, "workstation")
