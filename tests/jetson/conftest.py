"""Clips and compiled stand-ins for the runner's tests."""

import os
import shutil
import subprocess
import sys

import pytest

DOUBLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "doubles")
if DOUBLES not in sys.path:
    sys.path.insert(0, DOUBLES)


def _compile(name, target, folder, *packages, link=()):
    gcc = shutil.which("gcc")
    if not gcc:
        pytest.skip("gcc is not installed")
    flags = []
    if packages:
        known = subprocess.run(["pkg-config", "--cflags", "--libs"] + list(packages), stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL) if shutil.which("pkg-config") else None
        if known is None or known.returncode:
            pytest.skip("the GStreamer headers are not installed (libgstreamer-plugins-base1.0-dev)")
        flags = known.stdout.decode().split()
    path = os.path.join(str(folder), target)
    command = [gcc, "-O2", "-shared", "-fPIC", os.path.join(DOUBLES, name), "-o", path]
    subprocess.check_call(command + flags + list(link))
    return path


@pytest.fixture(scope="session")
def gstreamer():
    """Skips where GStreamer's tools are missing."""
    if not shutil.which("gst-launch-1.0") or not shutil.which("gst-inspect-1.0"):
        pytest.skip("gst-launch-1.0 is not installed (gstreamer1.0-tools)")


@pytest.fixture(scope="session")
def csi_env(gstreamer, tmp_path_factory):
    """Environment in which the Jetson's CSI elements exist."""
    folder = tmp_path_factory.mktemp("csi")
    _compile("csi_plugin.c", "libgstcsistandin.so", folder, "gstreamer-1.0", "gstreamer-base-1.0",
             "gstreamer-video-1.0")
    env = {"GST_PLUGIN_PATH": str(folder), "GST_REGISTRY": str(folder / "registry.bin")}
    # The registry is written once here, so that no test's time-out pays for it.
    subprocess.call(["gst-inspect-1.0", "nvvidconv"], env=dict(os.environ, **env), stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL)
    return env


@pytest.fixture(scope="session")
def v4l2_env(gstreamer, tmp_path_factory):
    """Environment in which /dev/video0 is a camera."""
    return {"LD_PRELOAD": _compile("v4l2_shim.c", "v4l2_shim.so", tmp_path_factory.mktemp("v4l2"), link=["-ldl"])}


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A video of 90 frames, 320x240 at 30 frames/s, with two squares the tiny bundle's net finds."""
    import cv2
    import squares

    path = str(tmp_path_factory.mktemp("clip") / "squares.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    assert writer.isOpened()
    for number in range(90):
        writer.write(squares.draw((320, 240), [(0, 80 + number, 80, 30), (1, 240 - number, 170, 60)], seed=3))
    writer.release()
    return path
