"""What the server answers: the page, the pictures, the state, events, metrics, health.

Lines and zones are all that can be changed through it, by an operator alone.
"""

import json
import os
import re
from typing import Any, Callable, Dict, Optional

from jetson.inference.runner import View
from jetson.monitor.journal import Journal
from jetson.monitor.status import Status
from jetson.web import access, prometheus
from jetson.web.history import History
from jetson.web.http import CHANGES, Request, Response
from jetson.web.marks import Marks
from jetson.web.picture import BOUNDARY, NEXT, Pictures, Studio, picture_part
from jetson.web.server import Server

WEB = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = (
    "alerts.js",
    "camera.js",
    "dom.js",
    "drift.js",
    "editor.js",
    "events.js",
    "grid.js",
    "history.js",
    "media.js",
    "overlay.js",
    "page.js",
    "state.js",
    "theme.js",
    "tradeoff.js",
)
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/views.css": ("views.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/api/v1/openapi.json": ("openapi.json", "application/json"),
}
# One page, which opens its tab by the address: links of before lead there.
FILES.update(dict.fromkeys(("/history", "/alerts", "/tradeoff", "/drift"), FILES["/"]))
FILES.update({f"/{name}": (name, "text/javascript; charset=utf-8") for name in SCRIPTS})
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
        marks: Optional[Marks] = None,
        alerts: Any = None,
    ) -> None:
        self.status = status
        self.journal = journal
        self.guard = guard
        self.server = server
        self.pictures = pictures
        self.studio = studio
        self.alerts = alerts
        self.answers: Dict[str, Callable[[Request], Response]] = {
            "/stream.mjpg": self._stream,
            "/snapshot.jpg": self._snapshot,
            "/api/state": self._state,
            "/api/events": self._events,
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/api/drift": self._drift,
            "/api/v1/pictures": self._grid,
            "/api/v1/me": self._me,
            "/api/v1/zones": self._zones,
            "/api/v1/alerts": self._alerts,
        }
        self.listened = False  # whether anybody follows the events
        self.history = history
        self.marks = marks or Marks(None, server.publish)
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
        elif topic == "grid":
            self.studio.want_small(self.pictures.small if count else None)
        elif topic.startswith("picture "):
            self.studio.want(int(topic.split()[1]), count > 0)

    def handle(self, request: Request) -> Response:
        """Answer one request; called in the server's thread, so it must not wait for anything."""
        request = access.without_prefix(request)
        refusal = self.guard.refuse(request)
        if refusal is not None:
            return refusal
        if request.method in ("PUT", "POST"):
            return self._change(request)
        if request.path in FILES:
            return Response(200, self._files[request.path], FILES[request.path][1])
        answer = self.answers.get(request.path)
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
            return Response(404, b"no such camera\n")
        card = self._card(camera)
        first = b"" if card is None else picture_part(card)
        return Response(
            200,
            NEXT + first,
            "multipart/x-mixed-replace; boundary=" + BOUNDARY,
            topic=f"picture {camera.camera.index}",
            latest_only=True,
        )

    def _grid(self, request: Request) -> Response:
        """A small picture of every camera each second, all in one answer: a browser asks a server six at a time."""
        headers = {"X-Accel-Buffering": "no"}
        return Response(200, b"", "application/x-jetmask-pictures", headers, topic="grid", skips=True)

    def _me(self, request: Request) -> Response:
        user = self.guard.user(request) if self.guard.users else None
        refusal = self.guard.refuse_change(request)
        told = {
            "user": user.name if user else None,
            "role": user.role if user else None,
            "changes": refusal is None and self.marks.kept_in is not None,
            "zones_in": self.marks.kept_in,
        }
        return Response(200, json.dumps(told).encode(), "application/json")

    def _zones(self, request: Request) -> Response:
        camera = self._camera(request)
        if camera is None:
            return _wrong(404, "no such camera")
        state = camera.zones.state()
        zones = [
            {"kind": kind, "name": one["name"], "points": one["points"]}
            for kind, places in (("line", state["lines"]), ("zone", state["zones"]))
            for one in places
        ]
        told = {"camera": camera.name or str(camera.position), "zones": zones, "zones_in": self.marks.kept_in}
        return Response(200, json.dumps(told).encode(), "application/json")

    def _change(self, request: Request) -> Response:
        if (request.method, request.path) not in CHANGES:
            return Response(405, b"this cannot be changed\n", headers={"Allow": "GET, HEAD"})
        refusal = self.guard.refuse_change(request)
        if refusal is not None:
            return refusal
        if request.path == "/api/v1/alerts/test":
            return self._test(request)
        camera = self._camera(request)
        if camera is None or "camera" not in request.query:
            return _wrong(404, "no such camera: ?camera=NAME")
        return self.marks.put(camera, request.body)

    def _alerts(self, request: Request) -> Response:
        if self.alerts is None:
            return _wrong(404, "no alerts are set up: `alerts` in the configuration file")
        told = dict(self.alerts.state(), alerts=[self._with_media(one) for one in self.alerts.newest()])
        return Response(200, json.dumps(told).encode(), "application/json")

    def _with_media(self, alert: Dict[str, Any]) -> Dict[str, Any]:
        """An alert with the addresses, on this page, of what there is of it by now."""
        plain = {key: value for key, value in alert.items() if key not in ("picture_url", "clip_url")}
        media = self.history.media
        if media is None:
            return plain
        keys = {
            name: str(alert.get(f"{name}_url") or "").rpartition("/")[2].partition(".")[0]
            for name in ("picture", "clip")
        }
        return dict(plain, **media.urls(keys))

    def _test(self, request: Request) -> Response:
        try:
            name = json.loads(request.body.decode())["receiver"]
        except (ValueError, KeyError, TypeError):
            return _wrong(400, 'expected {"receiver": NAME}')
        if self.alerts is None or not isinstance(name, str) or not self.alerts.test(name):
            return _wrong(404, "no such receiver")
        return Response(202, json.dumps({"result": "queued"}).encode(), "application/json")

    def _card(self, view: View) -> Optional[bytes]:
        """The picture that says that there is none, while that is so."""
        return None if view.camera.status == "live" else self.pictures.newest(view.camera.index)

    def _snapshot(self, request: Request) -> Response:
        camera = self._camera(request)
        if camera is None:
            return Response(404, b"no such camera\n")
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


def _wrong(status: int, text: str) -> Response:
    return Response(status, json.dumps({"error": text}).encode() + b"\n", "application/json")
