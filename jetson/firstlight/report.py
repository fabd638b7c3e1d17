"""The report of first-light: steps as JSON and as text, without names or addresses, so that anybody can attach it."""

import getpass
import os
import re
import socket
import time
from typing import Any, Dict, List, Optional

from jetson import __version__, files
from jetson.firstlight.step import FAIL, PASS, SKIPPED, Outcome

SCHEMA_VERSION = 1
_IPV4 = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b(?!\.\d)")
# With a gap, or with so many parts that it is no time of day.
_IPV6 = re.compile(r"(?<![\w:])(?=[0-9a-fA-F:]*::|(?:[0-9a-fA-F]{1,4}:){4})[0-9a-fA-F:]{3,}(?![\w:])")
_MAC = re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}(?![\w:])")
_URL = re.compile(r"\b(?:rtsps?|https?|mqtts?|ssh)://[^\s'\",;)]+")
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*")
_HOME = re.compile(r"/(?:home|Users)/[^/\s'\",;:)]+")
_BY_ID = re.compile(r"/dev/v4l/by-(?:id|path)/[^\s'\",;)]+")
# TensorRT's own numbers have four parts, too: 8.2.1.8.
_VERSION_KEYS = ("version", "tensorrt", "kernel", "l4t")


class Scrubber:
    """Takes out what tells whose device this is: its name, its user, addresses, home folders, serial numbers."""

    def __init__(self, names: Optional[List[str]] = None) -> None:
        own = [socket.gethostname(), socket.gethostname().split(".")[0], _user(), os.environ.get("HOME", "")]
        own += [_serial(path) for path in ("/proc/device-tree/serial-number", "/etc/machine-id")]
        # Short or common words would take half of the report with them.
        common = {"root", "user", "nano", "jetson", "nvidia", "localhost", "/root", "ubuntu", "/"}
        words = [word for word in own + (names or []) if len(word) > 2 and word.lower() not in common]
        self._names = re.compile(
            "|".join(r"(?<!\w)" + re.escape(word) + r"(?!\w)" for word in sorted(words, key=len, reverse=True))
            or r"(?!)",
            re.IGNORECASE,
        )

    def text(self, text: str, key: str = "") -> str:
        """One text without them. `key`: what it is, where it stands under one."""
        for pattern, word in ((_URL, "ADDRESS"), (_BY_ID, "/dev/v4l/CAMERA"), (_MAC, "ADDRESS"), (_MAIL, "ADDRESS")):
            text = pattern.sub(word, text)
        text = self._names.sub("NAME", _HOME.sub("HOME", text))
        if key not in _VERSION_KEYS:
            text = _IPV6.sub("ADDRESS", _IPV4.sub("ADDRESS", text))
        return text

    def value(self, value: Any, key: str = "") -> Any:
        """Any JSON value without them."""
        if isinstance(value, str):
            return self.text(value, key)
        if isinstance(value, dict):
            return {self.text(str(name)): self.value(inner, str(name)) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(inner, key) for inner in value]
        return value


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return ""


def _serial(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(200).decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


class Report:
    """Grows step by step; written anew after each, so that a power cut leaves what is known."""

    def __init__(self, path: Optional[str], bundle: Dict[str, Any], stand_in: Optional[str]) -> None:
        self.path = path
        self._scrub = Scrubber()
        self.stand_in = stand_in
        self.steps: List[Dict[str, Any]] = []
        self._date = time.strftime("%Y-%m-%d", time.gmtime())
        self._bundle = bundle

    def add(self, name: str, outcome: Outcome, seconds: float) -> None:
        """One more step."""
        self.steps.append(
            {
                "step": name,
                "status": outcome.status,
                "seconds": round(seconds, 1),
                "stand_in": self.stand_in is not None,
                "what": self._scrub.text(outcome.what),
                "measured": self._scrub.value(outcome.measured),
            }
        )
        if self.path:
            files.write_json(self.path, self.value())
            files.write_text(os.path.splitext(self.path)[0] + ".txt", self.text() + "\n")

    @property
    def failed(self) -> List[str]:
        """The names of the steps that failed."""
        return [step["step"] for step in self.steps if step["status"] == FAIL]

    def value(self) -> Dict[str, Any]:
        """The whole report as JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "version": __version__,
            "date": self._date,
            "stand_in": self.stand_in,
            "bundle": self._scrub.value(self._bundle),
            "ok": not self.failed,
            "steps": self.steps,
        }

    def text(self) -> str:
        """The report for people, a line per step."""
        head = f"first light of jetmask {__version__}, {self._date}, bundle {self._bundle['name']}"
        lines = [self._scrub.text(head)] + [line_of(step) for step in self.steps]
        found = [step["status"] for step in self.steps]
        lines.append(", ".join(f"{found.count(status)} {status}" for status in (PASS, FAIL, SKIPPED)))
        if self.stand_in:
            lines.append(f"on stand-ins ({self.stand_in}): it says that the steps work, nothing about a Jetson")
        return "\n".join(lines)


def line_of(step: Dict[str, Any]) -> str:
    """One step as one line."""
    mark = " (stand-in)" if step["stand_in"] else ""
    return f"{step['status']:<7}  {step['step']:<9}{mark} {' '.join(step['what'].split())} [{step['seconds']:.0f} s]"
