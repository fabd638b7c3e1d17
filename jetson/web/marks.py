"""Lines and zones that an operator draws on the page: checked, written to the file they are in, and counted at.

A thread of its own writes: the one that serves pictures does not wait for a disk.
"""

import itertools
import json
import queue
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from jetson.errors import JetmaskError
from jetson.inference.runner import View
from jetson.web.http import Response

_WAITING = 4
_KINDS = ("line", "zone")
_NO_FILE = "no file to keep lines and zones in: serve with --config FILE, or with --zones FILE"


class Saver(NamedTuple):
    """`save(view, zones)` writes and applies, or raises JetmaskError; `kept_in`: "config" or "zones"."""

    save: Callable[[View, List[Dict[str, Any]]], None]
    kept_in: str


class Marks:
    """Takes what was drawn. `saver` None: there is no file; `publish(topic, answer)` is the server's."""

    def __init__(self, saver: Optional[Saver], publish: Callable[[str, Response], None]) -> None:
        self._saver = saver
        self._publish = publish
        self._waiting: queue.Queue[Optional[Tuple[str, View, List[Dict[str, Any]]]]] = queue.Queue(_WAITING)
        self._numbers = itertools.count(1)
        self._thread: Optional[threading.Thread] = None
        if saver is not None:
            self._thread = threading.Thread(target=self._run, args=(saver,), name="marks", daemon=True)
            self._thread.start()

    @property
    def kept_in(self) -> Optional[str]:
        """The kind of file that lines and zones are in; None: there is none."""
        return self._saver.kept_in if self._saver is not None else None

    def put(self, view: View, body: bytes) -> Response:
        """Take {"zones": [{"kind", "name", "points"}, …]} for all lines and zones of a camera."""
        if self._saver is None:
            return _told(409, error=_NO_FILE)
        try:
            zones = zones_of(body)
        except ValueError as error:
            return _told(400, error=str(error))
        topic = f"marks {next(self._numbers)}"
        try:
            self._waiting.put_nowait((topic, view, zones))
        except queue.Full:
            return _told(503, error="too many changes at once")
        return Response(200, b"", "application/json", topic=topic, once=True)

    def _run(self, saver: Saver) -> None:
        while True:
            found = self._waiting.get()
            if found is None:
                return
            topic, view, zones = found
            try:
                saver.save(view, zones)
                answer = _told(200, camera=view.name or str(view.position), saved=len(zones))
            except JetmaskError as error:
                more = [str(text) for text in (error.expected, error.remedy) if text]
                answer = _told(400, error="; ".join([str(error.what)] + more))
            except OSError as error:
                answer = _told(507, error=f"the file cannot be written: {error.strerror}")
            self._publish(topic, answer)

    def close(self) -> None:
        """End the thread, when what was taken is written."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(5.0)


def zones_of(body: bytes) -> List[Dict[str, Any]]:
    """The lines and zones of a request; ValueError says what is wrong. Whether they are of use is for the file's part.

    >>> zones_of(b'{"zones": [{"kind": "line", "name": "door", "points": [[0, 0.5], [1, 0.5]]}]}')[0]["name"]
    'door'
    """
    try:
        data = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    zones = data.get("zones") if isinstance(data, dict) else None
    if not isinstance(zones, list) or set(data) != {"zones"}:
        raise ValueError('{"zones": [{"kind": "line" or "zone", "name": …, "points": [[x, y], …]}]} is expected')
    for one in zones:
        if not isinstance(one, dict) or set(one) != {"kind", "name", "points"}:
            raise ValueError("each line or zone has kind, name and points, and nothing else")
        if one["kind"] not in _KINDS or not isinstance(one["name"], str):
            raise ValueError("kind is line or zone, name is a word")
        if not isinstance(one["points"], list) or not all(_is_point(point) for point in one["points"]):
            raise ValueError("points are [[x, y], …], shares of the picture from 0 to 1")
    return zones


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(isinstance(part, (int, float)) and not isinstance(part, bool) and 0 <= part <= 1 for part in point)
    )


def _told(status: int, **values: Any) -> Response:
    return Response(status, json.dumps(values).encode() + b"\n", "application/json")
