"""Clips and compiled stand-ins for the runner's tests."""

import sys

import pytest
import stand_ins

# They need hypothesis or packages of the host.
collect_ignore_glob = ["*_properties.py", "*_host.py"] if sys.version_info < (3, 11) else []


def _or_skip(make, *words):
    try:
        return make(*words)
    except stand_ins.Missing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def gstreamer():
    """Skips where GStreamer's tools are missing."""
    _or_skip(stand_ins.need_gstreamer)


@pytest.fixture(scope="session")
def csi_env(tmp_path_factory):
    """Environment in which the Jetson's CSI elements exist."""
    return _or_skip(stand_ins.csi_env, tmp_path_factory.mktemp("csi"))


@pytest.fixture(scope="session")
def v4l2_env(tmp_path_factory):
    """Environment in which /dev/video0 is a camera."""
    return _or_skip(stand_ins.v4l2_env, tmp_path_factory.mktemp("v4l2"))


@pytest.fixture
def rtsp():
    """A real RTSP server; `rtsp.start()` starts it."""
    made = _or_skip(stand_ins.RtspServer)
    yield made
    made.close()


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
