"""A rollout as it goes: a table drawn again and again on a terminal, plain lines elsewhere; and the final table."""

import re
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, TextIO

from jetson.cli import table

WAITING = "waiting"
_CODES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|.)?|[\x00-\x08\x0e-\x1a\x7f]")


class Board:
    """The state of each device. Threads tell it what happens; the main thread calls `draw` several times a second."""

    def __init__(self, names: Sequence[str], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._lock = threading.Lock()
        self._rows: dict[str, dict[str, Any]] = {
            name: {"state": WAITING, "detail": "", "began": None, "seconds": None, "ended": False} for name in names
        }
        self._width = max(map(len, names), default=0)
        self._drawn = 0

    def begin(self, name: str, what: str) -> None:
        """A device has come to a stage."""
        with self._lock:
            row = self._rows[name]
            row["began"] = row["began"] or time.monotonic() - (row["seconds"] or 0)
            row.update(state=what, detail="", ended=False)
        self._line(name, what)

    def tell(self, name: str, text: str) -> None:
        """A word on the stage that a device is in; only a terminal shows it."""
        with self._lock:
            # A tool's colours and other codes would go on behind the table.
            line = _CODES.sub("", text).strip()
            self._rows[name]["detail"] = line.splitlines()[-1] if line else ""

    def end(self, name: str, result: str, why: str = "") -> None:
        """A device has come to its end, or to a preliminary one."""
        with self._lock:
            row = self._rows[name]
            if row["began"] is not None:
                row["seconds"] = time.monotonic() - row["began"]
            row.update(
                state=result, detail=why or (row["detail"] if result == row["state"] else ""), began=None, ended=True
            )
        self._line(name, result + (f": {why}" if why else ""))

    def ended(self, name: str) -> bool:
        """Whether a device has come to an end."""
        return self._rows[name]["ended"]

    def state(self, name: str) -> str:
        """A device's state, in a word or by its stage."""
        return self._rows[name]["state"]

    def say(self, text: str) -> None:
        """A sentence on the whole rollout."""
        with self._lock:
            self._wipe()
            print(text, file=self._stream, flush=True)

    def _line(self, name: str, text: str) -> None:
        if not self._terminal:
            print(f"{name}: {text}", file=self._stream, flush=True)

    def draw(self) -> None:
        """Draw the table in the place of the one before (terminals only)."""
        if not self._terminal:
            return
        width, height = shutil.get_terminal_size()
        with self._lock:
            lines = self._lines(max(3, height - 2))
            self._wipe()
            self._stream.write("".join(line[: width - 1] + "\n" for line in lines))
            self._stream.flush()
            self._drawn = len(lines)

    def close(self) -> None:
        """Take the live table away."""
        with self._lock:
            self._wipe()
            self._stream.flush()

    def _wipe(self) -> None:
        if self._drawn:
            self._stream.write(f"\033[{self._drawn}A\033[J")
            self._drawn = 0

    def _lines(self, room: int) -> list[str]:
        now = time.monotonic()
        # What moves comes first where not all fit.
        order = sorted(self._rows, key=lambda name: (self._rows[name]["began"] is None, not self._rows[name]["ended"]))
        shown = set(order[: room - 1] if len(order) > room else order)
        lines = []
        for name, row in self._rows.items():
            if name in shown:
                seconds = now - row["began"] if row["began"] is not None else row["seconds"]
                spent = "" if seconds is None else f"{seconds:.0f} s"
                detail = f"  ({row['detail']})" if row["detail"] else ""
                lines.append(f"{name:<{self._width}}  {spent:>6}  {row['state']}{detail}")
        hidden = len(self._rows) - len(shown)
        return [*lines, f"and {hidden} more"] if hidden else lines

    def results(self) -> list[dict[str, Any]]:
        """[{host, result, why, seconds}] in the fleet's order."""
        return [
            {
                "host": name,
                "result": row["state"],
                "why": row["detail"] or None,
                "seconds": None if row["seconds"] is None else round(row["seconds"], 1),
            }
            for name, row in self._rows.items()
        ]


def text_table(results: Sequence[dict[str, Any]]) -> str:
    """The rollout's result for people."""
    rows = [
        [
            row["host"],
            row["result"],
            "-" if row["seconds"] is None else f"{row['seconds']:.1f}",
            row["was"][:16] if row.get("was") else "-",
            row["now"][:16] if row.get("now") else "-",
        ]
        for row in results
    ]
    text = table(["device", "result", "s", "was", "runs now"], rows)
    return "\n".join([text, *(f"{row['host']}: {row['why']}" for row in results if row["why"])])
