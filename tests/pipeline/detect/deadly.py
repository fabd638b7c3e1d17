"""`pipeline.detect.worker.work`, except that one file kills the process, as one that takes all memory would."""

import os
import signal

from pipeline.detect import worker


def work(items):
    """As the worker's."""
    if any(os.path.basename(item.path) == "deadly.jpg" for item in items):
        os.kill(os.getpid(), signal.SIGKILL)
    return worker.work(items)
