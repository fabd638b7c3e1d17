"""What the page and other programs ask of the stored events: /api/v1/events (JSON and CSV) and /api/v1/hours.

Questions are answered by a thread of their own: one to a million events takes a slow card's time, and pictures and
/healthz must not wait for it.
"""

import calendar
import csv
import io
import itertools
import json
import queue
import sqlite3
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from jetson.events.media import Media, kind_of
from jetson.events.store import Query, Store
from jetson.web.http import Request, Response

MOST = 10000
MOST_DAYS = 3660  # the longest that events are kept, and a little
COLUMNS = ("number", "at", "kind", "camera", "label", "zone", "person", "reason")
MEDIA_PATH = "/api/v1/media/"
_WAITING = 64  # a page of thumbnails is fifty
_NAMES = ("camera", "label", "zone", "kind")


class History:
    """Answers for `store` (None: nothing is kept); `publish(topic, body)` is the server's."""

    def __init__(
        self,
        store: Optional[Store],
        publish: Callable[[str, Union[bytes, Response]], None],
        media: Optional[Media] = None,
    ) -> None:
        self.store = store
        self.media = media
        self._publish = publish
        self.answers = {
            "/api/v1/events": self._events,
            "/api/v1/events.csv": self._export,
            "/api/v1/hours": self._hours,
        }
        self._questions = queue.Queue(_WAITING)  # type: queue.Queue[Optional[Tuple[str, Callable[[], Union[bytes, Response]]]]]
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def handle(self, request: Request) -> Optional[Response]:
        """The answer, or None where the path is another's."""
        if request.path.startswith(MEDIA_PATH):
            return self._file(request.path[len(MEDIA_PATH) :])
        ask = self.answers.get(request.path)
        if ask is None:
            return None
        if self.store is None:
            return _refused(404, "no events are kept: serve with --history FILE")
        try:
            answer, kind = ask(self.store, request.query)
        except ValueError as error:
            return _refused(400, str(error))
        headers = {"Cache-Control": "no-store"}
        if kind.startswith("text/csv"):
            headers["Content-Disposition"] = 'attachment; filename="events.csv"'
        return self._later(answer, kind, headers)

    def _later(self, answer: Callable[[], Union[bytes, Response]], kind: str, headers: Dict[str, str]) -> Response:
        topic = f"history {next(self._numbers)}"
        try:
            self._questions.put_nowait((topic, answer))
        except queue.Full:
            return _refused(503, "too many questions at once")
        return Response(200, b"", kind, headers, topic=topic, once=True)

    def _file(self, name: str) -> Response:
        """A picture or clip, read by the thread: a slow card holds up nobody else."""
        media, kind = self.media, kind_of(name)
        if media is None or kind is None:
            return _refused(404, "no picture or clip of this name")
        if media.expected(name):
            busy = _refused(503, "the clip is being recorded")
            busy.headers["Retry-After"] = "5"
            return busy
        if not media.has(name):
            return _refused(404, "it is not kept, or not any more")
        # It may become better until the person has left: no cache may answer for it.
        return self._later(
            lambda: media.read(name) or _refused(404, "it is not kept any more"), kind, {"Cache-Control": "no-store"}
        )

    def _events(self, store: Store, query: Dict[str, str]) -> Tuple[Callable[[], bytes], str]:
        wanted = query_of(query, 100)

        def answer() -> bytes:
            found = store.find(wanted)
            if self.media is not None:
                found = [dict(event, **self.media.urls(event)) for event in found]
            more = found[-1]["number"] if len(found) == wanted.most and found else None
            return json.dumps({"events": found, "before": more}).encode()

        return answer, "application/json"

    def _export(self, store: Store, query: Dict[str, str]) -> Tuple[Callable[[], bytes], str]:
        wanted = query_of(query, MOST)
        return lambda: as_csv(store.find(wanted)), "text/csv; charset=utf-8"

    def _hours(self, store: Store, query: Dict[str, str]) -> Tuple[Callable[[], bytes], str]:
        until = _time(query, "until") or time.time()
        since = _time(query, "since")
        since = until - 86400 if since is None else since
        if not 0 <= until - since <= MOST_DAYS * 86400:
            raise ValueError(f"since must be before until, by {MOST_DAYS} days at most")
        per = query.get("per", "hour")
        if per not in ("hour", "day"):
            raise ValueError("per is hour or day")
        camera = query.get("camera")

        def answer() -> bytes:
            rows = store.hours(since or 0.0, until, camera)
            return json.dumps({"per": per, "rows": by_day(rows) if per == "day" else rows}).encode()

        return answer, "application/json"

    def _run(self) -> None:
        while True:
            question = self._questions.get()
            if question is None:
                return
            topic, answer = question
            body: Union[bytes, Response]
            try:
                body = answer()
            except sqlite3.Error as error:
                body = json.dumps({"error": f"the events cannot be read: {error}"}).encode()
            self._publish(topic, body)

    def close(self) -> None:
        """End the thread."""
        self._questions.put(None)
        self._thread.join(2.0)


def query_of(fields: Dict[str, str], most: int) -> Query:
    """The query of a request's fields; ValueError for one that is not known or has a wrong value."""
    unknown = sorted(set(fields) - set(_NAMES) - {"since", "until", "before", "count"})
    if unknown:
        raise ValueError(
            f"unknown field {unknown[0]}: camera, label, zone, kind, since, until, before, count are known"
        )
    names = {name: fields.get(name) for name in _NAMES}
    before, count = fields.get("before"), fields.get("count", str(most))
    for name, text in (("before", before), ("count", count)):
        if text is not None and not (text.isdecimal() and len(text) < 16):
            raise ValueError(f"{name} must be a whole number")
    return Query(
        since=_time(fields, "since"),
        until=_time(fields, "until"),
        before=int(before) if before is not None else None,
        most=max(1, min(int(count), MOST)),
        **names,
    )


def _time(fields: Dict[str, str], name: str) -> Optional[float]:
    """Unix seconds of a field: a number, or ISO 8601 in UTC (a day, or with a time)."""
    text = fields.get(name)
    if text is None:
        return None
    for shape in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"):
        try:
            return float(calendar.timegm(time.strptime(text.rstrip("Z"), shape)))
        except ValueError:
            continue
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e11:  # NaN too
        raise ValueError(f"{name} must be Unix seconds or a time such as 2026-12-01T08:00Z")
    return seconds


def by_day(rows: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Rows by hour summed up to days in UTC."""
    found = {}  # type: Dict[int, Dict[str, int]]
    for row in rows:
        day = found.setdefault(int(row["at"] // 86400), {})
        for label, count in row["persons"].items():
            day[label] = day.get(label, 0) + count
    return [{"at": day * 86400, "persons": persons} for day, persons in sorted(found.items())]


def as_csv(events: List[Dict[str, Any]]) -> bytes:
    """Events as CSV with a header, newest first. A value that a spreadsheet would take for a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for event in events:
        values = [event.get(name) for name in COLUMNS]
        writer.writerow(["'" + v if isinstance(v, str) and v[:1] in ("=", "+", "-", "@") else v for v in values])
    return out.getvalue().encode()


def _refused(status: int, text: str) -> Response:
    return Response(status, json.dumps({"error": text}).encode() + b"\n", "application/json")
