"""A GStreamer pipeline in a process of its own, read from stdin: `python3 -m jetson.capture.launch < PIPELINE`.

What gst-launch-1.0 -v does with a pipeline on its command line, where everybody can read the address of a camera and
its password. It says the same, in the same words, on stdout and stderr. libgstreamer by ctypes: a device has no
Python package for it. Functions and structures as in GStreamer's reference (gstmessage.h, gstparse.h), 1.14 and newer.
"""

import ctypes
import sys
from typing import Any, Tuple

_PLAYING, _PAUSED, _NULL = 4, 3, 1
_FAILURE = 0
_EOS, _ERROR, _WARNING, _CLOCK_LOST, _LATENCY = 1 << 0, 1 << 1, 1 << 2, 1 << 10, 1 << 19
_PROPERTY_NOTIFY = (1 << 31) + 3
_SECOND = 1000000000


class _MiniObject(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_size_t),
        ("refcount", ctypes.c_int),
        ("lockstate", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("copy", ctypes.c_void_p),
        ("dispose", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
        ("priv_uint", ctypes.c_uint),
        ("priv_pointer", ctypes.c_void_p),
    ]


class _Message(ctypes.Structure):
    _fields_ = [
        ("mini_object", _MiniObject),
        ("type", ctypes.c_uint),
        ("timestamp", ctypes.c_uint64),
        ("src", ctypes.c_void_p),
        ("seqnum", ctypes.c_uint32),
    ]


class _Error(ctypes.Structure):
    _fields_ = [("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p)]


def _load() -> Tuple[Any, Any, Any]:
    """(libgstreamer, libgobject, libglib) with the types of what is used; OSError where they are not."""
    gst, gobject, glib = [
        ctypes.CDLL(name) for name in ("libgstreamer-1.0.so.0", "libgobject-2.0.so.0", "libglib-2.0.so.0")
    ]
    pointer: Any = ctypes.c_void_p
    text: Any = ctypes.c_char_p
    for function, result, words in (
        (gst.gst_init, None, [pointer, pointer]),
        (gst.gst_parse_launch, pointer, [text, pointer]),
        (gst.gst_element_add_property_deep_notify_watch, ctypes.c_ulong, [pointer, text, ctypes.c_int]),
        (gst.gst_element_set_state, ctypes.c_int, [pointer, ctypes.c_int]),
        (gst.gst_element_get_bus, pointer, [pointer]),
        (gst.gst_bus_timed_pop, pointer, [pointer, ctypes.c_uint64]),
        (gst.gst_bin_recalculate_latency, ctypes.c_int, [pointer]),
        (gst.gst_message_parse_error, None, [pointer, pointer, pointer]),
        (gst.gst_message_parse_warning, None, [pointer, pointer, pointer]),
        (gst.gst_message_parse_property_notify, None, [pointer, pointer, pointer, pointer]),
        (gst.gst_mini_object_unref, None, [pointer]),
        (gst.gst_object_get_path_string, pointer, [pointer]),
        (gst.gst_caps_to_string, pointer, [pointer]),
        (gobject.g_value_get_boxed, pointer, [pointer]),
        (glib.g_free, None, [pointer]),
    ):
        function.restype, function.argtypes = result, words
    return gst, gobject, glib


class Pipeline:
    """One running pipeline; `run` until it ends."""

    def __init__(self, description: str) -> None:
        self._gst, self._gobject, self._glib = _load()
        self._gst.gst_init(None, None)
        error = ctypes.POINTER(_Error)()
        self._pipeline = self._gst.gst_parse_launch(description.encode(), ctypes.byref(error))
        self.fault = error.contents.message.decode("utf-8", "replace") if error else ""

    def _owned(self, pointer: int) -> str:
        """A string that GStreamer has given away."""
        text = (ctypes.cast(pointer, ctypes.c_char_p).value or b"").decode("utf-8", "replace") if pointer else ""
        self._glib.g_free(pointer)
        return text

    def _complaint(self, message: int, kind: str) -> None:
        error, debug = ctypes.POINTER(_Error)(), ctypes.c_void_p()
        parse = self._gst.gst_message_parse_error if kind == "ERROR" else self._gst.gst_message_parse_warning
        parse(message, ctypes.byref(error), ctypes.byref(debug))
        source = ctypes.cast(message, ctypes.POINTER(_Message)).contents.src
        path = self._owned(self._gst.gst_object_get_path_string(source)) if source else ""
        text = (error.contents.message or b"").decode("utf-8", "replace") if error else ""
        print(f"{kind}: from element {path}: {text}", file=sys.stderr)
        print(f"Additional debug info:\n{self._owned(debug.value or 0)}", file=sys.stderr, flush=True)

    def _property(self, message: int) -> None:
        source, name, value = ctypes.c_void_p(), ctypes.c_char_p(), ctypes.c_void_p()
        self._gst.gst_message_parse_property_notify(
            message, ctypes.byref(source), ctypes.byref(name), ctypes.byref(value)
        )
        caps = self._gobject.g_value_get_boxed(value) if value.value else None
        if caps and name.value == b"caps":
            path = self._owned(self._gst.gst_object_get_path_string(source))
            print(f"{path}: caps = {self._owned(self._gst.gst_caps_to_string(caps))}", flush=True)

    def run(self) -> int:
        """Play until the end (0) or an error (1)."""
        gst, pipeline = self._gst, self._pipeline
        gst.gst_element_add_property_deep_notify_watch(pipeline, b"caps", 1)
        bus = gst.gst_element_get_bus(pipeline)
        failed = gst.gst_element_set_state(pipeline, _PLAYING) == _FAILURE
        code = -1
        while code < 0:
            message = gst.gst_bus_timed_pop(bus, _SECOND)
            if not message:
                code = 1 if failed else -1  # its reason would have come by now
                continue
            kind = ctypes.cast(message, ctypes.POINTER(_Message)).contents.type
            if kind == _ERROR:
                self._complaint(message, "ERROR")
                code = 1
            elif kind == _WARNING:
                self._complaint(message, "WARNING")
            elif kind == _EOS:
                code = 0
            elif kind == _PROPERTY_NOTIFY:
                self._property(message)
            elif kind == _LATENCY:
                gst.gst_bin_recalculate_latency(pipeline)
            elif kind == _CLOCK_LOST:
                gst.gst_element_set_state(pipeline, _PAUSED)
                gst.gst_element_set_state(pipeline, _PLAYING)
            gst.gst_mini_object_unref(message)
        gst.gst_element_set_state(pipeline, _NULL)
        return code


def main() -> int:
    """Run the pipeline on stdin."""
    try:
        made = Pipeline(sys.stdin.buffer.read().decode("utf-8", "surrogateescape"))
    except OSError as error:
        print(f"jetmask: GStreamer's library cannot be loaded: {error}", file=sys.stderr)
        return 1
    if made.fault:
        print(f"WARNING: erroneous pipeline: {made.fault}", file=sys.stderr)
        return 1
    return made.run()


if __name__ == "__main__":
    sys.exit(main())
