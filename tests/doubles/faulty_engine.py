"""`python3 -m jetson` with faults from outside, for the runner's tests.

FAULTY_ENGINE    a file: while it holds "raise", every inference raises; "hang": it never returns; "hang for
                 good": nor does closing an engine, as where both wait for the GPU; "hang opening": no further engine
                 is opened
FAULTY_STUCK_S   seconds after which the loop counts as stuck (instead of 20)
FAULTY_CLOCK     SIGUSR1 sets the process's wall clock ahead by so many seconds (back, where negative)
"""

import contextlib
import os
import signal
import sys
import time

from jetson import cli
from jetson.__main__ import VERBS
from jetson.engine import onnx
from jetson.inference import isolated
from jetson.monitor import status


def main():
    switch = os.environ.get("FAULTY_ENGINE")
    plain = onnx.OnnxEngine.infer

    def wish():
        with contextlib.suppress(OSError, TypeError), open(switch) as file:
            return file.read()
        return ""

    def infer(self, image=None):
        if wish() == "raise":
            raise RuntimeError("a fault on purpose")
        while wish() in ("hang", "hang for good"):
            time.sleep(1)
        return plain(self, image)

    def opened(self, *words):
        while wish() == "hang opening":
            time.sleep(1)
        plain_open(self, *words)

    def closed(self):
        while wish() == "hang for good":
            time.sleep(1)
        plain_close(self)

    plain_open, onnx.OnnxEngine.__init__ = onnx.OnnxEngine.__init__, opened
    plain_close, onnx.OnnxEngine.close = onnx.OnnxEngine.close, closed
    onnx.OnnxEngine.infer = infer
    isolated.holds_the_lock = lambda runtime: False  # the fault is in this process
    status.STUCK_S = float(os.environ.get("FAULTY_STUCK_S", status.STUCK_S))
    if os.environ.get("FAULTY_CLOCK"):
        true_time, ahead = time.time, []
        time.time = lambda: true_time() + sum(ahead)
        signal.signal(signal.SIGUSR1, lambda *_: ahead.append(float(os.environ["FAULTY_CLOCK"])))
    return cli.main(None, "python3 -m jetson", VERBS)


if __name__ == "__main__":
    sys.exit(main())
