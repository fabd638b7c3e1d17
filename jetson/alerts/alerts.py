"""Who is told of what while the runner runs: events in, alerts out. The inferring thread waits for nothing here."""

import secrets
import socket
import sqlite3
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

from jetson.alerts.outbox import Outbox
from jetson.alerts.scene import GONE, RENAMED, Key, Scene
from jetson.alerts.sender import Sender
from jetson.alerts.settings import AlertSettings
from jetson.alerts.watch import Told, Watch, body_of
from jetson.bundle.classes import Classes
from jetson.events.media import CLIP, CROP, Kept, url_of
from jetson.monitor.journal import stamp

PERIOD_S = 0.5  # between two looks at the rules
SHOWN = 50
WAITING_ALERTS = 1000  # in memory while the disk takes none
PICTURES_WAITING = 50  # of them with a picture
WAITING = 20_000  # events that may wait for one; over that the oldest are not looked at


class Alerts:
    """The rules and receivers of one runner.

    `event` takes the journal's events, from any thread, and returns at once. A thread looks at the rules; what is to be
    told goes into the outbox, and from there by a thread of each receiver. `journal` is called with kind and fields of
    each alert; `kept(camera, person, at)` gives what is kept of it. What the disk does not take waits in memory, up to
    WAITING_ALERTS; over that the oldest goes, and is counted (`lost`).
    """

    def __init__(
        self,
        settings: AlertSettings,
        classes: Classes,
        outbox: str,
        say: Callable[[str], None],
        journal: Callable[..., Any] = lambda kind, **fields: None,
        kept: Callable[[Key, Optional[int], float], Kept] = lambda camera, person, at: Kept(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings.prepare()
        self.settings = settings
        self.told = 0
        self.error = ""
        self.lost = 0
        self._say, self._journal, self._kept, self._clock = say, journal, kept, clock
        self._unstored: Deque[Tuple[Sequence[str], Dict[str, Any], Optional[bytes]]] = deque()
        self._turning = threading.Lock()
        self._events: Deque[Dict[str, Any]] = deque(maxlen=WAITING)
        self._tests: Deque[str] = deque(maxlen=100)
        self._scene = Scene()
        self._classes = classes
        self._watch = Watch(settings.rules, classes)
        self._device = socket.gethostname()
        self._outbox = Outbox(outbox, settings.keep)
        if self._outbox.damaged:
            say(f"warning: the file of alerts was damaged; it is now {self._outbox.damaged}, and a new one was begun")
        if self._outbox.in_memory:
            say(f"warning: {self._in_memory()}")
        self._gone: Dict[str, int] = {}
        self._forget()
        self.senders = self._senders_of(settings)
        # Replaced by the thread at each turn: who asks for them must not wait for the disk.
        self._receivers = [sender.state() for sender in self.senders.values()]
        self._newest = self._outbox.latest(SHOWN)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def _senders_of(self, settings: AlertSettings, known: Sequence[str] = ()) -> Dict[str, Sender]:
        for one in settings.receivers:
            for text in one.warnings() if one.name not in known else ():
                self._say(text)
        return {
            one.name: Sender(one, self._outbox, settings.retry_s, settings.longest_retry_s, self._say)
            for one in settings.receivers
        }

    def _forget(self) -> None:
        """Drop and count what waits for receivers that are no longer in the file."""
        names = [one.name for one in self.settings.receivers]
        try:
            for name, count in self._outbox.forget(names).items():
                self._say(f"warning: {count} alerts for {name} were dropped: the receiver was removed")
            self._gone = {name: count for name, count in self._outbox.all_dropped().items() if name not in names}
        except sqlite3.Error as error:
            self._failed(error)

    def _in_memory(self) -> str:
        return (
            f"Alerts are kept in memory alone, because {self._outbox.path} cannot be written: "
            f"{self._outbox.in_memory}; a restart loses those that wait"
        )

    def apply(self, settings: AlertSettings) -> None:
        """Go over to other rules and receivers. Where they cannot work here: BadInput or DeviceMismatch, and no change.

        Rules that are as before do not tell again what they have told; receivers of the same name get what waits.
        """
        settings.prepare()
        with self._turning:
            # One whose settings are as before goes on: what it is just sending must not be sent twice.
            same = self.settings.same_receivers(settings)
            old, self.senders = self.senders, {}
            for name, sender in old.items():
                if name not in same:
                    sender.stop()
            watch = Watch(settings.rules, self._classes)
            watch.go_on_from(self._watch)
            self.settings, self._watch = settings, watch
            self._outbox.keep = settings.keep
            self._forget()
            self.senders = {
                name: old[name] if name in same else sender.start()
                for name, sender in self._senders_of(settings, same).items()
            }

    def forget(self, camera: Key) -> None:
        """A camera is watched no longer: what holds of it, holds no more."""
        self._events.append({"kind": GONE, "camera": camera})

    def rename(self, was: Key, camera: Key) -> None:
        """A camera is called otherwise now."""
        self._events.append({"kind": RENAMED, "was": was, "camera": camera})

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
        """{told, error, unstored, lost, gone, rules, receivers}: for the page, /api/state and the metrics."""
        return {
            "told": self.told,
            "error": self.error,
            "unstored": len(self._unstored),
            "lost": self.lost,
            "gone": dict(self._gone),  # dropped for receivers that are no longer in the file
            "rules": [{"name": one.name, "when": one.when.text(), "to": list(one.to)} for one in self.settings.rules],
            "receivers": self._receivers,
        }

    def warnings(self) -> List[str]:
        """What an operator should look at, in words."""
        found = [self.error] if self.error else []
        if self._outbox.in_memory:
            found.append(self._in_memory())
        if self.lost:
            found.append(f"{self.lost} alerts were lost while the disk took none")
        for one in self.senders.values():
            if one.error:
                found.append(f"Alerts to {one.receiver.name} are not taken: {one.error}")
        return found

    def newest(self) -> List[Dict[str, Any]]:
        """The newest alerts, newest first, from before this start, too."""
        return list(self._newest)

    def turn(self) -> None:
        """Take what came, look at the rules once, and put what is to be told into the outbox."""
        with self._turning:
            self._turn()

    def _turn(self) -> None:
        now = self._clock()
        self._store()
        while self._tests:
            self._add([self._tests.popleft()], self._tried(now), None)
        events: List[Dict[str, Any]] = []
        while self._events:
            events.append(self._events.popleft())
        self._scene.take(events, now)
        for event in events:
            if event["kind"] == "clock stepped":
                self._watch.moved(float(event["by_s"]))
            elif event["kind"] == GONE:
                self._watch.forget(event["camera"])
            elif event["kind"] == RENAMED:
                self._watch.rename(event["was"], event["camera"])
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
        kept = self._kept(found.camera, found.fields.get("person"), now)
        wanted = any(self.senders[name].receiver.picture for name in found.rule.to if name in self.senders)
        picture = kept.jpeg if wanted else None
        body["picture"] = picture is not None
        if kept.picture is not None:
            body["picture_url"] = self.settings.page + url_of(kept.picture + CROP)
        if kept.clip is not None:
            body["clip_url"] = self.settings.page + url_of(kept.clip + CLIP)
        self._add(found.rule.to, body, picture)
        fields = {key: body[key] for key in ("zone", "label", "role", "person") if body.get(key) is not None}
        fields.update({key: value for key, value in (("picture", kept.picture), ("clip", kept.clip)) if value})
        self._journal("alert", camera=found.camera, rule=found.rule.name, reason=found.text, **fields)

    def _add(self, receivers: Sequence[str], body: Dict[str, Any], picture: Optional[bytes]) -> None:
        self.told += 1
        self._unstored.append((tuple(receivers), body, picture))
        while len(self._unstored) > WAITING_ALERTS:
            self._unstored.popleft()
            self.lost += 1
        if len(self._unstored) > PICTURES_WAITING:
            self._unstored[-1] = (tuple(receivers), dict(body, picture=False), None)
        self._store()

    def _store(self) -> None:
        """Put what waits in memory into the outbox, in its order, as far as the disk takes it."""
        while self._unstored:
            wanted, body, picture = self._unstored[0]
            receivers = [name for name in wanted if name in self.senders]  # a reload may have taken one away
            try:
                number = self._outbox.add(receivers, body, picture)
            except sqlite3.Error as error:  # a full disk; the page says so, and the journal has the alert
                self._failed(error)
                return
            self._unstored.popleft()
            self.error = ""
            self._newest = [dict(body, number=number)] + self._newest[: SHOWN - 1]
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
