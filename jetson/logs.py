"""What is told beside results: Python's logging, to stderr, in the form that suits who reads it.

Results are printed on stdout. Everything else is a record of `logging.getLogger(__name__)`: INFO is shown, DEBUG with
-v, and with -q only warnings and errors. In a terminal a line is the message alone. Where stderr goes to systemd's
journal, which stamps each line itself, a line begins with its priority (sd-daemon(3)), so that `journalctl -p warning`
finds it. With -v time and module stand before it.
"""

import logging
import os
import sys
from typing import Any

ROOTS = ("jetson", "pipeline", "benchmarks")
_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"), (0, "<7>"))


class _Stderr(logging.StreamHandler):
    """Writes to what sys.stderr is now: tests and a C locale's wrapper change it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class _Form(logging.Formatter):
    def __init__(self, journal: bool, detailed: bool) -> None:
        stamp = "" if journal else "%(asctime)s "
        super().__init__(stamp + "%(name)s: %(message)s" if detailed else "%(message)s")
        self.journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self.journal:
            return text
        mark = next(mark for level, mark in _PRIORITIES if record.levelno >= level)
        return "\n".join(mark + line for line in text.split("\n"))


def to_journal() -> bool:
    """Whether stderr is the stream that systemd made for its journal: $JOURNAL_STREAM is its device and inode."""
    try:
        about = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # closed, or not a file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{about.st_dev}:{about.st_ino}"


def start(verbosity: int = 0) -> None:
    """Show records from now on. verbosity: -1 warnings and errors, 0 what is told, 1 or more everything."""
    level = logging.WARNING if verbosity < 0 else logging.INFO if verbosity == 0 else logging.DEBUG
    handler = _Stderr()
    handler.setFormatter(_Form(to_journal(), verbosity > 0))
    for name in ROOTS:
        logger = logging.getLogger(name)
        for old in [old for old in logger.handlers if isinstance(old, _Stderr)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False  # libraries give the root logger a handler of its own (LiteRT's, say): each line twice
