"""A real RTSP camera at rtsp://127.0.0.1:PORT/cam, by GStreamer's own server: PORT [PATTERN [WxH [FPS [CODEC]]]].

Without further words H.264, 640x360, 30 frames/s; the other codec is mjpeg.

/udp is the same over UDP alone, /sound has no picture.

Run by the system's Python: it needs python3-gi and gir1.2-gst-rtsp-server-1.0. Prints "ready" when it serves.
"""

import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

CODECS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max=30 ! rtph264pay name=pay0 pt=96",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
}


def pipeline(pattern="ball", size="640x360", fps="30", codec="h264"):
    width, height = size.split("x")
    return (
        f"( videotestsrc is-live=true pattern={pattern} ! "
        f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 ! {CODECS[codec]} )"
    )


SOUND = "( audiotestsrc is-live=true ! audio/x-raw,rate=8000 ! alawenc ! rtppcmapay name=pay0 pt=8 )"


def add(server, path, launch, transport):
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch)
    factory.set_shared(True)
    if transport is not None:
        factory.set_protocols(transport)
    server.get_mount_points().add_factory(path, factory)


def main():
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(pipeline(*sys.argv[2:]))
    factory.set_shared(True)
    server.get_mount_points().add_factory("/cam", factory)
    add(server, "/udp", pipeline(), GstRtsp.RTSPLowerTrans.UDP)
    add(server, "/sound", SOUND, None)
    for _ in range(100):
        if server.attach(None):
            break
        time.sleep(0.1)  # the port is still held by what was killed
    else:
        sys.exit(f"port {sys.argv[1]} can not be had")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
