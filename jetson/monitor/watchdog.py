"""The process and its keeper: systemd's notify socket, and the end of a process that no longer works.

Protocol: sd_notify(3): datagrams of KEY=VALUE lines to $NOTIFY_SOCKET; a name that begins with '@' is abstract.
"""

import contextlib
import os
import socket
import sys
from typing import Mapping, Optional


def say(text: str) -> None:
    """A line for the log (stderr: a keeper stamps it)."""
    with contextlib.suppress(OSError):  # a log that nobody takes any more is no reason to end
        print("jetmask: " + text, file=sys.stderr, flush=True)


class Notifier:
    """Tells systemd how it goes. Without $NOTIFY_SOCKET every call does nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self.watchdog_s = _watchdog_s(environment)

    def send(self, *lines: str) -> bool:
        """Send lines as one message; whether it went out. A keeper that does not listen is no reason to fail."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
            return True
        except OSError:
            return False

    def ready(self, text: str) -> None:
        """Start-up (or a reload) is over."""
        self.send("READY=1", "STATUS=" + text)

    def beat(self, text: str) -> None:
        """All is well; to be called at least every `watchdog_s` seconds."""
        self.send("WATCHDOG=1", "STATUS=" + text)

    def stopping(self) -> None:
        """The process is about to end, as asked."""
        self.send("STOPPING=1")


def _watchdog_s(environment: Mapping[str, str]) -> Optional[float]:
    """Half of WATCHDOG_USEC in seconds, when it is meant for this process."""
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not text.isdigit() or int(text) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 2e6
