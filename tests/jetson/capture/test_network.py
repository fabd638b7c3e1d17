"""Cameras in a network: each spelling of an address is read by real servers on loopback."""

import contextlib
import http.server
import socket
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


@pytest.fixture(scope="module")
def transport_stream(tmp_path_factory):
    """Ten seconds of MPEG-TS at 25 frames/s, as bytes; made by OpenCV's own FFmpeg."""
    path = tmp_path_factory.mktemp("stream") / "ten.ts"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"MPG2"), 25, (160, 120))
    if not writer.isOpened():
        pytest.skip("this OpenCV's FFmpeg writes no MPEG-TS")
    for number in range(250):
        writer.write(np.full((120, 160, 3), number % 200, np.uint8))
    writer.release()
    return path.read_bytes()


def test_hls_is_read_at_its_own_pace(watch, transport_stream, tmp_path):
    """A live playlist (no end in it): its segments come all at once, the frames at their times."""
    packets, length = len(transport_stream) // 188, 5
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:2", "#EXT-X-MEDIA-SEQUENCE:0"]
    for part in range(length):
        begin, end = (188 * (packets * number // length) for number in (part, part + 1))
        (tmp_path / f"{part}.ts").write_bytes(transport_stream[begin:end])
        lines += ["#EXTINF:2.0,", f"{part}.ts"]
    (tmp_path / "live.m3u8").write_text("\n".join(lines) + "\n")

    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            data = (tmp_path / self.path.strip("/")).read_bytes()
            self.send_response(200)
            kind = "application/vnd.apple.mpegurl" if self.path.endswith("m3u8") else "video/mp2t"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        cam = watch(f"http://127.0.0.1:{server.server_address[1]}/live.m3u8")
        arrived = []

        def enough():
            frame = cam.take()
            if frame is not None:
                assert frame.wh == (160, 120)
                arrived.append((frame.number, frame.arrived))
                frame.release()
            return len(arrived) > 20

        wait_for(enough, f"frames: {cam.last_error}")
        (first, began), (last, ended) = arrived[0], arrived[-1]
        # Not before their times, counted from the first; a segment at once would be 50 frames in no time.
        assert ended - began > 0.8 * (last - first) / 25
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("spelling", ["udp://127.0.0.1:{}", "udp://@:{}"])
def test_mpeg_ts_over_udp_and_its_loss(watch, transport_stream, spelling):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sending, over = threading.Event(), threading.Event()
    sending.set()

    def send():
        chunk = 7 * 188
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not over.is_set():
                for begin in range(0, len(transport_stream), chunk):
                    if over.is_set() or not sending.wait(0.1):
                        continue
                    with contextlib.suppress(OSError):  # nobody listens yet
                        out.sendto(transport_stream[begin : begin + chunk], ("127.0.0.1", port))
                    time.sleep(10.0 * chunk / len(transport_stream))

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        cam = watch(spelling.format(port))
        wait_for(lambda: cam.frames > 10, f"frames: {cam.last_error}")
        frame = wait_for(cam.take, "a frame")
        assert frame.wh == (160, 120) and frame.second is None
        frame.release()
        if "@" in spelling:
            return
        sending.clear()
        wait_for(lambda: cam.status == "lost", "the notice")
        sending.set()
        before = cam.frames
        wait_for(lambda: cam.frames > before + 5 and cam.status == "live", f"the picture again: {cam.last_error}")
    finally:
        over.set()
        sender.join(5)


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
