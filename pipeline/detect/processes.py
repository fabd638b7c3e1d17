"""How the processes of a pool come to be: forked from a server that has imported all they need and runs no threads."""

import os
import sys
import threading
from multiprocessing import forkserver, get_context, parent_process
from multiprocessing.context import BaseContext

PRELOAD = ["pipeline.detect.worker"]


def context() -> BaseContext:
    """Of a server on Linux; elsewhere each process imports for itself, which takes as long as ten photographs.

    Forking this process would be as quick, but its engines, OpenCV and NumPy have threads, and a child has their locks
    without the threads that would open them.
    """
    return get_context("forkserver" if sys.platform == "linux" else "spawn")


def prepare() -> None:
    """Begin what takes its time, the server's imports, while this process does something else. Nothing where one runs
    already."""
    if sys.platform != "linux":
        return
    name = "OPENBLAS_NUM_THREADS"  # NumPy and OpenCV start threads for it when they are imported
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        forkserver.set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def end_with_parent() -> None:
    """End this process when the one that asked for it is gone, however it ended: a pool's would wait for ever, and the
    kernel's own signal (PR_SET_PDEATHSIG) comes with the end of the server."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
