"""`python3 -m jetson VERB`: the device's commands."""

import codecs
import io
import sys

from jetson import cli

VERBS = {
    "serve": ("jetson.serve.cli", "run the detector on a camera or a clip and serve the live page"),
    "config": ("jetson.config.cli", "check, write or convert the file of --config"),
    "build": ("jetson.engine.cli", "build this device's TensorRT engines from a bundle"),
    "bench": ("jetson.bench.cli", "measure latency, throughput and AP of a bundle's variants on this device"),
    "verify": ("jetson.install.cli:verify", "check that a bundle is whole and unchanged"),
    "install": ("jetson.install.cli", "install, activate or roll back bundles on this device"),
    "first-light": ("jetson.firstlight.cli", "try everything on this device once, and write a report"),
    "collect": ("jetson.collect.cli", "keep frames of a camera as photographs to be labelled"),
    "doctor": ("jetson.doctor.cli", "say what this device has, what is missing, and what to do"),
}


def speak_utf8() -> None:
    """Print UTF-8 in the C locale, which a command over ssh has on a Nano: Python 3.6 would fail at the first ü.

    Newer Pythons do so by themselves.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and codecs.lookup(stream.encoding or "ascii").name == "ascii":
            # surrogateescape: a file's name comes out as the bytes it has.
            setattr(sys, name, io.TextIOWrapper(stream.buffer, "utf-8", "surrogateescape", line_buffering=True))


if __name__ == "__main__":
    speak_utf8()
    sys.exit(cli.main(None, "python3 -m jetson", VERBS))
