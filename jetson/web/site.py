"""What the server answers: the page, the pictures, the state, events, metrics, health. Nothing can be changed by it."""

import json
import os
import re
from typing import Any, Dict, Optional

from jetson.inference.runner import View
from jetson.monitor.journal import Journal
from jetson.monitor.status import Status
from jetson.web import access, prometheus
from jetson.web.history import History
from jetson.web.http import Request, Response
from jetson.web.picture import BOUNDARY, NEXT, Pictures, Studio, picture_part
from jetson.web.server import Server

WEB = os.path.dirname(os.path.abspath(__file__))
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/drift": ("drift.html", "text/html; charset=utf-8"),
    "/drift.js": ("drift.js", "text/javascript; charset=utf-8"),
    "/history": ("history.html", "text/html; charset=utf-8"),
    "/history.js": ("history.js", "text/javascript; charset=utf-8"),
}
_JPEG_TYPE = "image/jpeg"


def event_part(name: str, value: Any) -> bytes:
    """One server-sent event; one of the journal has its number as the id, by which a browser goes on."""
    number = f"id: {value['number']}\n" if name == "event" else ""
    return f"event: {name}\n{number}data: {json.dumps(value)}\n\n".encode()


class Site:
    """Routes requests; `tell(name, value)` feeds the stream of events."""

    def __init__(
        self,
        status: Status,
        journal: Journal,
        guard: access.Access,
        server: Server,
        pictures: Pictures,
        studio: Studio,
        history: History,
    ) -> None:
        self.status = status
        self.journal = journal
        self.guard = guard
        self.server = server
        self.pictures = pictures
        self.studio = studio
        self.listened = False  # whether anybody follows the events
        self.history = history
        self._files: Dict[str, bytes] = {}
        for path, (name, _) in FILES.items():
            with open(os.path.join(WEB, name), "rb") as file:
                self._files[path] = file.read()

    def tell(self, name: str, value: Any) -> None:
        """Send an event to everybody who listens."""
        self.server.publish("events", event_part(name, value))

    def viewers(self, topic: str, count: int) -> None:
        """The server's word about how many watch."""
        if topic == "events":
            self.listened = count > 0
        elif topic.startswith("picture "):
            self.studio.want(int(topic.split()[1]), count > 0)

    def handle(self, request: Request) -> Response:
        """Answer one request; called in the server's thread, so it must not wait for anything."""
        request = access.without_prefix(request)
        refusal = self.guard.refuse(request)
        if refusal is not None:
            return refusal
        if request.path in FILES:
            return Response(200, self._files[request.path], FILES[request.path][1])
        answer = {
            "/stream.mjpg": self._stream,
            "/snapshot.jpg": self._snapshot,
            "/api/state": self._state,
            "/api/events": self._events,
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/api/drift": self._drift,
        }.get(request.path)
        if answer is not None:
            return answer(request)
        if request.path.startswith("/api/v1/"):
            kept = self.history.handle(request)
            if kept is not None:
                return kept
        if request.path.startswith("/api/crops/"):
            return self._crop(request.path[len("/api/crops/") :])
        return Response(404, b"there is no such page\n")

    def _camera(self, request: Request) -> Optional[View]:
        """The camera that a request names, by name or by its position; without either the first."""
        views = self.status.runner.views
        text = request.query.get("camera", "0")
        named = [view for view in views if view.name == text and text]
        if named:
            return named[0]
        number = int(text) if re.match(r"^[0-9]{1,3}$", text) else -1
        return views[number] if 0 <= number < len(views) else None

    def _stream(self, request: Request) -> Response:
        camera = self._camera(request)
        if camera is None:
            return Response(404, b"there is no such camera\n")
        card = self._card(camera)
        first = b"" if card is None else picture_part(card)
        return Response(
            200,
            NEXT + first,
            "multipart/x-mixed-replace; boundary=" + BOUNDARY,
            topic=f"picture {camera.camera.index}",
            latest_only=True,
        )

    def _card(self, view: View) -> Optional[bytes]:
        """The picture that says that there is none, while that is so."""
        return None if view.camera.status == "live" else self.pictures.newest(view.camera.index)

    def _snapshot(self, request: Request) -> Response:
        camera = self._camera(request)
        if camera is None:
            return Response(404, b"there is no such camera\n")
        card = self._card(camera)
        if card is not None:
            return Response(503, card, _JPEG_TYPE, {"Retry-After": "2"})
        marked = request.query.get("overlay", "0") == "1"
        if request.method == "GET":  # for HEAD none is drawn
            self.studio.want_one(camera.camera.index, marked)
        topic = f"{'marked' if marked else 'snapshot'} {camera.camera.index}"
        return Response(200, b"", _JPEG_TYPE, topic=topic, once=True)

    def _state(self, request: Request) -> Response:
        return Response(200, json.dumps(self.status.state()).encode(), "application/json")

    def _events(self, request: Request) -> Response:
        text = request.headers.get("last-event-id", "0")
        after = int(text) if re.match(r"^[0-9]{1,15}$", text) else 0
        first = b"retry: 2000\n\n"
        if after:  # before the state, whose newest events the page would take for all
            first += b"".join(event_part("event", e) for e in reversed(self.journal.latest(100, after)))
        first += event_part("state", self.status.state())
        return Response(200, first, "text/event-stream", {"X-Accel-Buffering": "no"}, topic="events")

    def _metrics(self, request: Request) -> Response:
        try:
            return Response(200, prometheus.exposition(self.status.state()), prometheus.CONTENT_TYPE)
        except ImportError:
            return Response(501, b"the Python package prometheus_client is not installed\n")

    def _drift(self, request: Request) -> Response:
        if self.status.drift is None:
            return Response(404, b"drift is not measured (--drift off)\n")
        return Response(200, json.dumps(self.status.drift.full()).encode(), "application/json")

    def _health(self, request: Request) -> Response:
        health = self.status.health()
        return Response(200 if health["ok"] else 503, json.dumps(health).encode() + b"\n", "application/json")

    def _crop(self, key: str) -> Response:
        data = self.journal.crop(key)
        if data is None:
            return Response(404, b"no picture is kept (they are off unless --keep-crops is given)\n")
        return Response(200, data, _JPEG_TYPE)
