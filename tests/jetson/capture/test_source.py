"""Addresses of cameras, and the pipelines made of them."""

import os

import cv2
import numpy as np
import pytest

from jetson.capture import check, gstreamer, reader, source
from jetson.capture.fit import fit
from jetson.errors import BadInput, UsageError


@pytest.mark.parametrize(
    "uri, kind, path",
    [
        ("/dev/video0", "v4l2", "/dev/video0"),
        ("/dev/video12?fps=15", "v4l2", "/dev/video12"),
        ("csi://1", "csi", "1"),
        (
            "/dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920_0A1B-video-index0?fps=15",
            "v4l2",
            "/dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920_0A1B-video-index0",
        ),
        (
            "/dev/v4l/by-path/platform-70090000.xusb-usb-0:2.1:1.0-video-index0",
            "v4l2",
            "/dev/v4l/by-path/platform-70090000.xusb-usb-0:2.1:1.0-video-index0",
        ),
        ("rtsp://u:p@host:8554/a?b=c", "rtsp", "rtsp://u:p@host:8554/a?b=c"),
        ("rtspt://host/a", "rtsp", "rtsp://host/a"),
        ("rtsp://host/a?transport=udp", "rtsp", "rtsp://host/a"),
        ("rtsp://host/a?b=c&transport=tcp&d", "rtsp", "rtsp://host/a?b=c&d"),
        ("rtsp://u:p[a]ss%@host/a", "rtsp", "rtsp://u:p%5Ba%5Dss%25@host/a"),
        ("rtsp://u:p@s s%20!@[::1]:554/a", "rtsp", "rtsp://u:p%40s%20s%20%21@[::1]:554/a"),
        ("http://host:81/mjpeg?a=1", "stream", "http://host:81/mjpeg?a=1"),
        ("https://host/live/index.m3u8", "stream", "https://host/live/index.m3u8"),
        ("udp://:5000", "stream", "udp://:5000"),
        ("udp://@239.0.0.1:5000", "stream", "udp://@239.0.0.1:5000"),
        ("v4l2:///dev/video1?fps=10", "v4l2", "/dev/video1"),
        ("file:///a%20b.mp4", "file", "/a b.mp4"),
        ("file://localhost/a.mp4", "file", "/a.mp4"),
        ("photo.jpg", "folder", "photo.jpg"),
        ("synthetic://", "synthetic", ""),
        ("clip.mp4", "file", "clip.mp4"),
        ("file:///a/b c.mp4", "file", "/a/b c.mp4"),
        ("a?b.mp4", "file", "a?b.mp4"),
    ],
)
def test_kinds(uri, kind, path):
    parsed = source.parse(uri)
    assert (parsed.kind, parsed.path) == (kind, path)
    assert parsed.live == (kind in ("v4l2", "csi", "rtsp", "stream"))


def test_folder(tmp_path):
    assert source.parse(str(tmp_path)).kind == "folder"


def test_options_of_an_address():
    parsed = source.parse("csi://0?size=640x360&fps=60&flip=2")
    assert (parsed.size, parsed.fps, parsed.options) == ((640, 360), 60.0, {"flip": "2"})
    assert source.parse("synthetic://", (320, 240), 0).fps == 0


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "ftp://x/",
        "http://",
        "https://host/film.mp4",
        "v4l2://x",
        "csi://0?mode=x",
        "rtsp://host/a?transport=sctp",
        "rtsp://u:p/w@host/a",
        "csi://",
        "csi://a",
        "csi://0?flip=9",
        "csi://0?flop=1",
        "synthetic://?size=9",
        "rtsp://",
        "rtsp://host/a b",
        'rtsp://host/"x',
        "/dev/video0?fps=-1",
        "/dev/video0?fps=x",
        "synthetic://?seed=x",
        "/dev/video0?size=1x1",
        "synthetic://?darken=1.5",
        "synthetic://?blur=x",
        "synthetic://?darken=-1",
        "csi://0?blur=2",
    ],
)
def test_nonsense_is_refused(uri):
    with pytest.raises(UsageError):
        source.parse(uri)


def test_a_worn_drawn_camera_is_darker_and_blurred():
    def first(uri):
        parsed = source.parse(uri)
        return next(reader.read_synthetic({"size": parsed.size, "fps": 30.0, "options": parsed.options}, lambda: None))

    plain, truth, _ = first("synthetic://?size=320x240")
    dark, same, _ = first("synthetic://?size=320x240&darken=0.4")
    blurred = first("synthetic://?size=320x240&blur=3")[0]
    assert abs(dark.mean() / plain.mean() - 0.6) < 0.01 and same == truth
    edges = [cv2.Laplacian(image, cv2.CV_16S).var() for image in (plain, blurred)]
    assert edges[1] < 0.1 * edges[0] and abs(blurred.mean() - plain.mean()) < 1
    assert not first("synthetic://?size=64x64&darken=1")[0].any()


def test_a_source_has_a_name():
    parsed = source.parse("front door=rtsp://me:secret@host/a")
    assert (parsed.name, parsed.path, parsed.label) == (
        "front door",
        "rtsp://me:secret@host/a",
        "front door (rtsp://host)",
    )
    assert (
        source.parse("cam 2=/dev/video0").path == "/dev/video0" and source.parse("rtsp://host/a?b=rtsp://c").name == ""
    )
    assert "secret" not in repr(parsed)


@pytest.mark.parametrize("uri", ["/nowhere/clip.mp4", "/dev/video77", "/dev/v4l/by-id/usb-gone-video-index0"])
def test_missing_source_is_told(uri):
    with pytest.raises(BadInput) as told:
        check.check(source.parse(uri))
    assert uri in str(told.value)


def test_empty_folder_is_told(tmp_path):
    with pytest.raises(BadInput) as told:
        check.check(source.parse(str(tmp_path)))
    assert "no image" in str(told.value)


def test_an_element_is_asked_for_again_when_there_was_no_answer(tmp_path, monkeypatch):
    """At the first boot GStreamer looks through all plugins, which may take longer than one waits."""
    tool = tmp_path / "gst-inspect-1.0"
    tool.write_text('#!/bin/sh\n[ "$1" = slow ] && exec sleep 600\n[ "$1" = there ]\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gstreamer, "_elements", {})
    monkeypatch.setattr(gstreamer, "ASK_S", 0.5)
    assert (gstreamer.have_element("there"), gstreamer.have_element("gone"), gstreamer.have_element("slow")) == (
        True,
        False,
        False,
    )
    tool.write_text("#!/bin/sh\nexit 0\n")
    # What was answered is not asked again.
    assert (gstreamer.have_element("there"), gstreamer.have_element("gone"), gstreamer.have_element("slow")) == (
        True,
        False,
        True,
    )


def test_csi_pipeline_is_the_jetsons(monkeypatch):
    monkeypatch.setattr(gstreamer, "have_element", lambda name: True)
    assert gstreamer.pipeline(source.parse("csi://0?flip=2&size=640x480"), 5) == (
        "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1640,height=1232,format=NV12,framerate=30/1 ! "
        "nvvidconv flip-method=2 ! video/x-raw,width=640,height=480,format=BGRx ! videoconvert ! "
        "video/x-raw,format=BGR ! fdsink fd=5 sync=false"
    )


@pytest.mark.parametrize(
    "uri, words",
    [
        (
            "csi://0?size=640x480&fps=60",
            ["width=1280,height=720", "framerate=60/1", "left=160 right=1120 top=0 bottom=720"],
        ),
        ("csi://0?size=480x640&flip=1", ["width=1640,height=1232", "flip-method=1 !"]),  # it stands on its side
        ("csi://0?size=3264x2464", ["width=3264,height=2464", "framerate=21/1"]),
    ],
)
def test_a_csi_picture_is_never_squeezed(monkeypatch, uri, words):
    monkeypatch.setattr(gstreamer, "have_element", lambda name: True)
    made = gstreamer.pipeline(source.parse(uri), 5)
    assert all(word in made for word in words), made


@pytest.mark.parametrize("uri", ["csi://0?size=640x480", "/dev/video0?size=640x480"])
def test_a_camera_that_gives_what_it_likes_is_boxed(monkeypatch, uri):
    monkeypatch.setattr(gstreamer, "have_element", lambda name: True)
    monkeypatch.setattr(gstreamer, "pixel_formats", lambda device: frozenset(["YUYV"]))
    made = gstreamer.pipeline(source.parse(uri), 5, relaxed=True)
    assert "videoscale add-borders=true ! video/x-raw,format=BGR,width=640,height=480,pixel-aspect-ratio=1/1" in made


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (64, 64), (1280, 720)])
def test_a_file_at_another_size_keeps_its_shape(size):
    frame = np.full((90, 160, 3), 200, np.uint8)
    made = fit(frame, size)
    assert made.shape == (size[1], size[0], 3)
    rows, columns = np.nonzero(made[:, :, 0] > 100)
    high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert abs(wide / high - 16 / 9) < 0.1 and (wide == size[0] or high == size[1])
    assert abs(rows.min() - (size[1] - 1 - rows.max())) <= 1 and abs(columns.min() - (size[0] - 1 - columns.max())) <= 1


def test_usb_camera_above_vga_is_read_as_mjpeg_in_hardware(monkeypatch):
    monkeypatch.setattr(gstreamer, "have_element", lambda name: True)
    monkeypatch.setattr(gstreamer, "pixel_formats", lambda device: frozenset(["YUYV", "MJPG"]))
    assert "image/jpeg,width=1280,height=720" in gstreamer.pipeline(source.parse("/dev/video0?size=1280x720"), 5)
    assert "nvv4l2decoder mjpeg=1" in gstreamer.pipeline(source.parse("/dev/video0?size=1280x720"), 5)
    assert "video/x-raw,width=640" in gstreamer.pipeline(source.parse("/dev/video0"), 5)


def test_size_is_read_from_gst_launch():
    line = (
        "/GstPipeline:pipeline0/GstFdSink:fdsink0.GstPad:sink: caps = video/x-raw, width=(int)642, "
        "height=(int)360, framerate=(fraction)30/1, format=(string)BGR"
    )
    assert gstreamer.announced_size(line) == (642, 360)
    assert gstreamer.announced_size("Setting pipeline to PLAYING ...") is None


def test_complaint_names_the_cause_not_its_consequence():
    lines = [
        "Setting pipeline to PAUSED ...",
        "ERROR: from element /GstPipeline:p/Argus:a: Invalid camera device",
        "ERROR: from element /GstPipeline:p/Argus:a: state change failed",
        "ERROR: pipeline doesn't want to preroll.",
    ]
    assert gstreamer.complaint(lines) == "Invalid camera device"
    assert gstreamer.complaint([]) == ""
