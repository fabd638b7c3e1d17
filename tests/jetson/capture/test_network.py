"""Cameras in a network: each spelling of an address is read by real servers on loopback."""

import http.server
import threading
import time

import cv2
import numpy as np
import pytest
from serving import wait_for

from jetson.capture import camera, gstreamer, source


@pytest.fixture
def watch():
    """A camera of an address, started; ended with the test."""
    made = []

    def start(uri):
        gstreamer._elements.clear()
        made.append(camera.Camera(source.parse(uri)).start())
        return made[-1]

    yield start
    for one in made:
        one.stop()


class Mjpeg(http.server.BaseHTTPRequestHandler):
    """An IP camera of the simple kind: /mjpeg with a password, parts of JPEG."""

    def do_GET(self):
        if self.path != "/mjpeg" or not self.headers.get("Authorization", "").startswith("Basic "):
            self.send_response(401 if self.path == "/mjpeg" else 404)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for number in range(10000):
                image = np.full((120, 160, 3), number % 200, np.uint8)
                data = cv2.imencode(".jpg", image)[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(0.03)
        except OSError:
            pass  # the viewer has gone

    def log_message(self, *_):
        pass


@pytest.fixture
def mjpeg():
    """host:port of the camera."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Mjpeg)
    # A daemon for each connection; Python 3.6 has no ThreadingHTTPServer.
    plain = server.process_request
    server.process_request = lambda *words: threading.Thread(target=plain, args=words, daemon=True).start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_mjpeg_over_http_with_a_password(watch, mjpeg):
    cam = watch(f"http://admin:p[a]ss%@{mjpeg}/mjpeg")
    wait_for(lambda: cam.frames > 10, f"frames: {cam.last_error}")
    frame = wait_for(cam.take, "a frame")
    assert frame.wh == (160, 120) and frame.second is None and frame.at == frame.arrived
    assert "ss%" not in cam.source.label
    frame.release()


def test_an_address_without_a_picture_is_told(watch, mjpeg):
    cam = watch(f"http://{mjpeg}/nothing")
    wait_for(lambda: cam.status == "lost", "the notice")
    assert "no stream with a picture" in cam.last_error


def test_rtsp_with_sound_alone_is_told(watch, rtsp):
    rtsp.start()
    cam = watch(rtsp.uri.replace("/cam", "/sound"))
    wait_for(lambda: cam.status == "lost", "the notice")
    assert "sound but no picture" in cam.last_error, cam.last_error


@pytest.mark.parametrize("wish", ["", "?transport=auto", "?transport=udp"])
def test_rtsp_over_udp_is_found_by_itself(watch, rtsp, wish):
    rtsp.start()
    cam = watch(rtsp.uri.replace("/cam", "/udp") + wish)
    wait_for(lambda: cam.frames > 5, f"frames: {cam.last_error}")


def test_rtsp_over_tcp_alone_stays_at_it(watch, rtsp):
    rtsp.start()
    cam = watch(rtsp.uri.replace("rtsp://", "rtspt://").replace("/cam", "/udp"))
    wait_for(lambda: cam.restarts >= 2, "two tries")
    assert cam.frames == 0


def test_a_list_of_sources(tmp_path):
    path = tmp_path / "cameras.txt"
    path.write_text("# the hall\nrtsp://host/a\n\nclip.mp4\n/dev/video0\n")
    assert source.is_list(str(path)) and source.read_list(str(path)) == [
        "rtsp://host/a",
        str(tmp_path / "clip.mp4"),
        "/dev/video0",
    ]
