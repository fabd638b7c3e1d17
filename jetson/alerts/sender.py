"""Brings what waits in the outbox to one receiver: in order, one at a time, again and again until it is taken."""

import sqlite3
import threading
from typing import Any, Callable, Dict, Optional, Tuple

from jetson.alerts.outbox import Outbox
from jetson.alerts.receiver import Message, Receiver, Refused


class Sender:
    """A thread. After a failure it waits `retry_s`, then twice as long each time up to `longest_s`.

    What was taken, but not yet noted so when the process was killed, is sent again with the same id. `wait(seconds)`
    returns after that time, or earlier, when `stop` was called; None: by the real clock.
    """

    def __init__(
        self,
        receiver: Receiver,
        outbox: Outbox,
        retry_s: float,
        longest_s: float,
        say: Callable[[str], None],
        wait: Optional[Callable[[float], Any]] = None,
    ) -> None:
        self.receiver = receiver
        self.error = ""
        self.sent = 0
        self._outbox = outbox
        self._retry_s = retry_s
        self._longest_s = longest_s
        self._say = say
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._thread = threading.Thread(target=self._run, name=f"alerts to {receiver.name}", daemon=True)

    def start(self) -> "Sender":
        """Begin with what waits from before."""
        self._wake.set()
        self._thread.start()
        return self

    def wake(self) -> None:
        """Something new waits."""
        self._wake.set()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End; what was not taken waits in the file for the next start."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self.receiver.close()

    def state(self) -> Dict[str, Any]:
        """For the page and the metrics."""
        name = self.receiver.name
        return {
            "name": name,
            "kind": self.receiver.kind,
            "place": self.receiver.place,
            "error": self.error,
            "sent": self.sent,
            "waiting": self._outbox.waiting(name),
            "dropped": self._outbox.dropped(name),
        }

    def _run(self) -> None:
        pause = self._retry_s
        settled: Optional[Tuple[int, Optional[Exception]]] = None  # an alert's number, and whether it was refused
        while not self._stop.is_set():
            self._wake.clear()
            try:
                one = self._outbox.first(self.receiver.name)
                if one is None:
                    error = None
                elif settled is not None and settled[0] == one.number:
                    error = settled[1]  # a full disk took no note of it: it must not be sent again for that
                else:
                    error = self._try(one.body, one.picture)
                if one is not None and (error is None or isinstance(error, Refused)):
                    settled = one.number, error
                    self._outbox.over(self.receiver.name, one.number, error is None)
            except sqlite3.Error as failure:
                one, error = None, failure
            if error is None:
                pause = self._retry_s
                if one is None:
                    self._wake.wait()
                else:
                    self.error = ""
                    self.sent += 1
                continue
            self._tell(error)
            if isinstance(error, Refused):
                continue
            self._wait(pause)
            pause = min(2 * pause, self._longest_s)

    def _try(self, body: Dict[str, Any], picture: Optional[bytes]) -> Optional[Exception]:
        try:
            self.receiver.send(Message(body, picture if self.receiver.picture else None))
        except Exception as error:  # whatever a library does, the thread goes on
            return error
        return None

    def _tell(self, error: Exception) -> None:
        if isinstance(error, sqlite3.Error):
            words, verdict = f"the file of alerts cannot be used: {error}", "has to wait"
        else:
            words = self.receiver.words(error)
            verdict = "refuses an alert" if isinstance(error, Refused) else "is down; its alerts wait"
        if words != self.error:
            self._say(f"warning: the receiver {self.receiver.name} {verdict}: {words}")
        self.error = words
