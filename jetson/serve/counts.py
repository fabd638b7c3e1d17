"""Counts outlive the process: how many persons each camera has seen, by class, at each line and in each zone.

A small file in the state folder, written when something has changed, at most once in SAVE_S, and at the end: after a
power cut at most so much is missing. Counts belong to a camera's name; those of one that is gone wait for its return.
"""

import os
import time
from typing import Any, Callable, Dict, Optional, Sequence

from jetson import files
from jetson.errors import BadInput
from jetson.inference.runner import View
from jetson.monitor import drift
from jetson.monitor.journal import stamp

SAVE_S = 10.0
_MOST = 256  # cameras
_SCHEMA = 1


def default_path() -> Optional[str]:
    """In the state folder that a deployed runner is given; None: nowhere."""
    state = os.environ.get("JETMASK_STATE")
    return os.path.join(state, "counts.json") if state else None


class Counts:
    """All cameras' counts. `path` None: for as long as this process lives. `warn(text)` is for the operator.

    A file that is no use is put aside: a runner that cannot start because of its counts would be worse.
    """

    def __init__(self, path: Optional[str], classes: Sequence[str], warn: Callable[[str], None]) -> None:
        self.path = path
        self.since = stamp(time.time())  # since when is counted
        self._classes = list(classes)
        self._warn = warn
        self._kept: Dict[str, Dict[str, Any]] = {}
        self._written: Any = None
        self._due = 0.0
        self._failed = False
        if path and os.path.exists(path):
            self._load(path)

    def _load(self, path: str) -> None:
        try:
            found = files.read_json(path)
            if not isinstance(found, dict) or found.get("schema") != _SCHEMA or not isinstance(found["since"], str):
                raise BadInput("not counts of jetmask", path)
            if found["classes"] != self._classes:
                self._warn("The bundle has other classes: persons are counted from 0 on.")
                return
            self._kept = {str(key): dict(value) for key, value in found["cameras"].items()}
            self.since = found["since"]
        except (BadInput, KeyError, TypeError, ValueError, AttributeError):
            self._kept = {}
            os.replace(path, path + ".damaged")
            self._warn(f"The file of counts was damaged; it is now {path}.damaged, and counting starts from zero.")

    def go_on(self, view: View, was: str = "") -> None:
        """Let a camera count on from what is known of it, or of the name that it had before."""
        key = _key(view)
        kept = self._kept.get(key) or (self._kept.pop(was, None) if was else None)
        if kept is None:
            return
        try:
            with view.tracking:
                by_class = [int(kept["persons"].get(name, 0)) for name in self._classes]
                view.tracker.counts[:] = by_class
                view.tracker.persons = sum(by_class)
                view.zones.restore(kept)
        except (KeyError, TypeError, ValueError, AttributeError):
            self._kept.pop(key, None)
            self._warn(f"The counts of {view.title} were damaged: it counts from 0 on.")

    def forget(self, view: View) -> None:
        """Nobody is to go on from what was kept of this camera: it is called otherwise now."""
        self._kept.pop(_key(view), None)

    def keep(self, views: Sequence[View]) -> None:
        """Take these cameras' counts."""
        for view in views:
            with view.tracking:
                persons = dict(zip(self._classes, (int(count) for count in view.tracker.counts)))
                places = view.zones.totals()
            self._kept[_key(view)] = dict(places, persons=persons)

    def turn(self, views: Sequence[View], now: float) -> None:
        """To be called often; `now`: monotonic seconds."""
        if self.path and now >= self._due:
            self._due = now + SAVE_S
            self.save(views)

    def save(self, views: Sequence[View]) -> None:
        """Write what has changed; a full disk is told once and tried again."""
        if not self.path:
            return
        self.keep(views)
        here = {_key(view) for view in views}
        gone = [key for key in self._kept if key not in here]
        for key in gone[: max(0, len(self._kept) - _MOST)]:
            del self._kept[key]
        value = {"schema": _SCHEMA, "since": self.since, "classes": self._classes, "cameras": self._kept}
        if value == self._written:
            return
        try:
            files.write_json(self.path, value)
            self._written = dict(value, cameras={key: dict(kept) for key, kept in self._kept.items()})
            self._failed = False
        except OSError as error:
            if not self._failed:
                self._warn(f"Counts are not kept: {error.strerror}")
            self._failed = True


def _key(view: View) -> str:
    """A name; of a camera without one what drift knows it by, so that a reorder moves no counts."""
    return drift.known_as(view.camera.source).key(view.position)
