"""Who is told of what while the runner runs: events in, alerts out. The inferring thread waits for nothing here."""

import secrets
import socket
import sqlite3
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional

from jetson.alerts.outbox import Outbox
from jetson.alerts.scene import Scene
from jetson.alerts.sender import Sender
from jetson.alerts.settings import AlertSettings
from jetson.alerts.watch import Told, Watch, body_of
from jetson.bundle.classes import Classes
from jetson.monitor.journal import stamp

PERIOD_S = 0.5  # between two looks at the rules
SHOWN = 50
WAITING = 20_000  # events that may wait for one; over that the oldest are not looked at


class Alerts:
    """The rules and receivers of one runner.

    `event` takes the journal's events, from any thread, and returns at once. A thread looks at the rules; what is to be
    told goes into the outbox, and from there by a thread of each receiver. `journal` is called with kind and fields of
    each alert; `crop` gives the JPEG kept of "camera-person", or None.
    """

    def __init__(
        self,
        settings: AlertSettings,
        classes: Classes,
        outbox: str,
        say: Callable[[str], None],
        journal: Callable[..., Any] = lambda kind, **fields: None,
        crop: Callable[[str], Optional[bytes]] = lambda key: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings.prepare()
        self.settings = settings
        self.told = 0
        self.error = ""
        self._say, self._journal, self._crop, self._clock = say, journal, crop, clock
        self._events: Deque[Dict[str, Any]] = deque(maxlen=WAITING)
        self._tests: Deque[str] = deque(maxlen=100)
        self._scene = Scene()
        self._watch = Watch(settings.rules, classes)
        self._device = socket.gethostname()
        self._outbox = Outbox(outbox, settings.keep)
        if self._outbox.damaged:
            say(f"warning: the file of alerts was damaged; it is now {self._outbox.damaged}, and a new one was begun")
        self._outbox.forget(one.name for one in settings.receivers)
        self.senders = {
            one.name: Sender(one, self._outbox, settings.retry_s, settings.longest_retry_s, say)
            for one in settings.receivers
        }
        for one in settings.receivers:
            for text in one.warnings():
                say(text)
        # Replaced by the thread at each turn: who asks for them must not wait for the disk.
        self._receivers = [sender.state() for sender in self.senders.values()]
        self._newest = self._outbox.latest(SHOWN)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> "Alerts":
        """Begin; what waits from before is sent first."""
        for sender in self.senders.values():
            sender.start()
        self._thread.start()
        return self

    def stop(self) -> None:
        """End; what no receiver has taken waits for the next start."""
        self._stop.set()
        self._thread.join(5.0)
        for sender in self.senders.values():
            sender.stop()
        self._outbox.close()

    def event(self, event: Dict[str, Any]) -> None:
        """An event of the journal has been kept."""
        if event["kind"] != "alert":
            self._events.append(event)

    def test(self, receiver: str) -> bool:
        """Send a test alert to a receiver; False where there is none of this name."""
        if receiver not in self.senders:
            return False
        self._tests.append(receiver)
        return True

    def state(self) -> Dict[str, Any]:
        """{told, error, rules, receivers}: for the page, /api/state and the metrics."""
        return {
            "told": self.told,
            "error": self.error,
            "rules": [{"name": one.name, "when": one.when.text(), "to": list(one.to)} for one in self.settings.rules],
            "receivers": self._receivers,
        }

    def warnings(self) -> List[str]:
        """What an operator should look at, in words."""
        found = [self.error] if self.error else []
        for one in self.senders.values():
            if one.error:
                found.append(f"Alerts to {one.receiver.name} are not taken: {one.error}")
        return found

    def newest(self) -> List[Dict[str, Any]]:
        """The newest alerts, newest first, from before this start, too."""
        return list(self._newest)

    def turn(self) -> None:
        """Take what came, look at the rules once, and put what is to be told into the outbox."""
        now = self._clock()
        while self._tests:
            self._add([self._tests.popleft()], self._tried(now), None)
        events: List[Dict[str, Any]] = []
        while self._events:
            events.append(self._events.popleft())
        self._scene.take(events, now)
        for camera in self._scene.cameras.values():
            camera.tidy(now)
        for told in self._watch.look(self._scene, now):
            self._tell(told, now)
        self._receivers = [sender.state() for sender in self.senders.values()]

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            try:
                self.turn()
            except Exception as error:  # a fault in one look must not end all alerts
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        text = f"alerts: {type(error).__name__}: {error}"
        if text != self.error:
            self._say("error: " + text)
        self.error = text

    def _tell(self, told: Told, now: float) -> None:
        found = told.found
        body = body_of(told, stamp(now), self._device, secrets.token_hex(8))
        picture = None
        if "person" in found.fields and any(sender.receiver.picture for sender in self.senders.values()):
            picture = self._crop(f"{found.camera}-{found.fields['person']}")
        body["picture"] = picture is not None
        self._add(found.rule.to, body, picture)
        fields = {key: body[key] for key in ("zone", "label", "role", "person") if body.get(key) is not None}
        self._journal("alert", camera=found.camera, rule=found.rule.name, reason=found.text, **fields)

    def _add(self, receivers: Any, body: Dict[str, Any], picture: Optional[bytes]) -> None:
        self.told += 1
        try:
            number = self._outbox.add(receivers, body, picture)
            self.error = ""
            self._newest = [dict(body, number=number)] + self._newest[: SHOWN - 1]
        except sqlite3.Error as error:  # a full disk; the page says so, and the journal has the alert
            self._failed(error)
            return
        for name in receivers:
            self.senders[name].wake()

    def _tried(self, now: float) -> Dict[str, Any]:
        return {
            "id": secrets.token_hex(8),
            "at": stamp(now),
            "rule": "test",
            "when": "",
            "text": "A test alert of jetmask: this receiver works.",
            "test": True,
            "device": self._device,
            "picture": False,
        }
