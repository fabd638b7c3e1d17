"""Cameras that are not there: compiled stand-ins for CSI and V4L2, and a real RTSP server."""

import os
import random
import shutil
import socket
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
SYSTEM_PYTHON = "/usr/bin/python3"


class Missing(Exception):
    """What this machine lacks for a stand-in, with the package that brings it."""


def _compile(name, target, folder, packages=(), link=()):
    gcc = shutil.which("gcc")
    if not gcc:
        raise Missing("gcc is not installed")
    flags = []
    if packages:
        known = (
            subprocess.run(
                ["pkg-config", "--cflags", "--libs"] + list(packages), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            if shutil.which("pkg-config")
            else None
        )
        if known is None or known.returncode:
            raise Missing("the GStreamer headers are not installed (libgstreamer-plugins-base1.0-dev)")
        flags = known.stdout.decode().split()
    path = os.path.join(str(folder), target)
    command = [gcc, "-O2", "-shared", "-fPIC", os.path.join(HERE, name), "-o", path]
    subprocess.check_call(command + flags + list(link))
    return path


def need_gstreamer():
    """Missing where GStreamer's tools are."""
    if not shutil.which("gst-launch-1.0") or not shutil.which("gst-inspect-1.0"):
        raise Missing("gst-launch-1.0 is not installed (gstreamer1.0-tools)")


def csi_env(folder):
    """Environment in which the Jetson's CSI elements exist (csi_plugin.c tells its further variables)."""
    need_gstreamer()
    _compile(
        "csi_plugin.c", "libgstcsistandin.so", folder, ("gstreamer-1.0", "gstreamer-base-1.0", "gstreamer-video-1.0")
    )
    env = {"GST_PLUGIN_PATH": str(folder), "GST_REGISTRY": os.path.join(str(folder), "registry.bin")}
    # The registry is written once here, so that no time-out pays for it.
    subprocess.call(
        ["gst-inspect-1.0", "nvvidconv"],
        env=dict(os.environ, **env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return env


def v4l2_env(folder):
    """Environment in which /dev/video0 is a camera (v4l2_shim.c tells its further variables)."""
    need_gstreamer()
    return {"LD_PRELOAD": _compile("v4l2_shim.c", "v4l2_shim.so", folder, link=["-ldl"])}


def _lasting_port():
    """A free port that no client is given while the server is down: below the range that clients get theirs from."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Missing("no free port between 20000 and 32000")


class RtspServer:
    """A real RTSP camera on a free port of loopback; `start()` as often as wished, `close()` at the end."""

    def __init__(self):
        need_gstreamer()
        probe = [
            SYSTEM_PYTHON,
            "-c",
            "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer",
        ]
        self._env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        if not os.path.exists(SYSTEM_PYTHON) or subprocess.call(probe, env=self._env, stderr=subprocess.DEVNULL):
            raise Missing("GStreamer's RTSP server is not installed (python3-gi, gir1.2-gst-rtsp-server-1.0)")
        self._port = _lasting_port()
        self.uri = f"rtsp://127.0.0.1:{self._port}/cam"
        self._servers = []

    def start(self, *words):
        """The server's process, serving; `words`: pattern, size, rate and codec (see rtsp_server.py)."""
        server = subprocess.Popen(
            [SYSTEM_PYTHON, os.path.join(HERE, "rtsp_server.py"), str(self._port), *words],
            env=self._env,
            stdout=subprocess.PIPE,
        )
        self._servers.append(server)
        assert server.stdout.readline() == b"ready\n"
        return server

    def close(self):
        for server in self._servers:
            server.kill()
            server.wait()
            server.stdout.close()
