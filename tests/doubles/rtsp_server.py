"""A real RTSP camera (H.264, 640x360, 30 frames/s) at rtsp://127.0.0.1:PORT/cam, by GStreamer's own server.

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

PIPELINE = (
    "( videotestsrc is-live=true pattern={pattern} ! video/x-raw,width=640,height=360,framerate=30/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max=30 ! rtph264pay name=pay0 pt=96 )"
)


SOUND = "( audiotestsrc is-live=true ! audio/x-raw,rate=8000 ! alawenc ! rtppcmapay name=pay0 pt=8 )"


def add(server, path, pipeline, transport):
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(pipeline)
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
    factory.set_launch(PIPELINE.format(pattern=sys.argv[2] if len(sys.argv) > 2 else "ball"))
    factory.set_shared(True)
    server.get_mount_points().add_factory("/cam", factory)
    add(server, "/udp", PIPELINE.format(pattern="ball"), GstRtsp.RTSPLowerTrans.UDP)
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
