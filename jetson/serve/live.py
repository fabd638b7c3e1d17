"""The live service: cameras, detector, page and supervision put together; runs until it is told to end."""

import argparse
import functools
import os
import threading
import time
from typing import Any, Dict, List, Optional

from jetson import files
from jetson.adapt import governor, tradeoff
from jetson.bundle import manifest
from jetson.capture import source
from jetson.errors import BadInput
from jetson.evaluation import average_precision
from jetson.inference.detector import Detector, Faces
from jetson.inference.isolated import open_for_threads
from jetson.inference.runner import Result, Runner, View
from jetson.monitor import drift
from jetson.monitor.board import Board
from jetson.monitor.journal import Journal, from_track
from jetson.monitor.status import Status
from jetson.monitor.watchdog import Notifier, say
from jetson.mqtt.publisher import Mqtt
from jetson.mqtt.settings import Settings
from jetson.net import address, loopback
from jetson.serve import reload
from jetson.tracking import zones
from jetson.tracking.zones import Counter
from jetson.web import access
from jetson.web.http import Response
from jetson.web.listener import Door
from jetson.web.picture import Studio, crop
from jetson.web.server import Server
from jetson.web.site import Site

_ASLEEP_S = 10.0


def default_threads() -> int:
    """Threads of one inference: one core is left for capture, drawing and serving."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


class Live:
    """One running `serve`. `args`: the verb's (jetson.serve.cli), checked; `publishing`: None without a broker."""

    def __init__(self, args: argparse.Namespace, publishing: Optional[Settings] = None) -> None:
        self.args = args
        self.publishing = publishing
        self.mqtt: Optional[Mqtt] = None
        # No trade-off samples faces for drift. Not the same as `tradeoff` being None, which it is for a moment in a
        # reload: faces of another model in between would throw away what was learnt.
        self.alone = False
        self.stop = threading.Event()
        self.reload = threading.Event()
        self.reloader: Optional[threading.Thread] = None
        self.notifier = Notifier()

    # -- start ----------------------------------------------------------------------------------------------------

    def open(self, sources: List[source.Source], token: Optional[str]) -> None:
        """Read the bundle, open the engine, start everything; `token` None: open to all. JetmaskError on a mistake."""
        args = self.args
        self.manifest = manifest.load(args.bundle)
        classes = self.manifest.class_list
        self.truths = average_precision.load_split(args.eval, classes.names) if args.eval else []
        self.threads = args.threads or default_threads()
        places = zones.load(args.zones, len(sources)) if args.zones else []
        self.zones = [
            Counter([one for one in places if one.camera == camera], classes.names) for camera in range(len(sources))
        ]
        variant = self.manifest.variant(args.variant)
        crops = args.keep_crops and not args.blur_faces
        self.journal = Journal(args.events, crops, self._tell_event)
        if self.publishing is not None:
            self.mqtt = Mqtt(self.publishing, say)
        guard = access.Access(token, args.allow_host)
        self.site: Optional[Site] = None
        # The port is taken before the engine is opened: a wrong port is told at once, not after minutes of building.
        self.server = Server(self._handle, self._viewers, access.HEADERS)
        self.door = Door(args.host, args.port, self._healthz, self.server.admit, access.HEADERS).start()
        detector = self.detector(variant)
        self.runner = Runner(
            sources,
            variant,
            detector,
            args.score,
            args.every_frame,
            self._on_result,
            reopen=self.detector,
            classes=classes,
        )
        self.board = Board().start()
        self.status = Status(
            self.manifest,
            self.runner,
            self.journal,
            self.board,
            privacy={
                "faces_blurred": args.blur_faces,
                "frames_stored": False,
                "crops_kept": crops,
                "events_file": bool(args.events),
            },
        )
        self.site = Site(self.status, self.journal, guard)
        self.studio = Studio(
            len(sources),
            self.site.picture,
            args.stream_fps,
            args.blur_faces,
            self.runner.score,
            lambda camera: self.zones[camera].state(),
            classes,
        )
        self.site.server, self.site.studio = self.server, self.studio
        self.status.server = self.server
        self.status.zones = self.zones
        self.status.mqtt = self.mqtt
        self.drift = self.status.drift = drift.open_for(
            args.drift, args.drift_days, sources, self._tell_drift, self._warn
        )
        self.compare(self.choose(self.manifest, variant))
        self.runner.start()
        self.server.start()
        if self.mqtt is not None:
            self.mqtt.classes = classes.names
            self.mqtt.start([one.names() for one in self.zones], self.board.state().get("model") or "")
        self._announce(guard, token)

    def detector(self, variant: Any, runtime: Optional[str] = None) -> Detector:
        return open_for_threads(self.args.bundle, variant, runtime or self.args.runtime, self.threads)

    def notice(self, text: str) -> None:
        """Something that an operator should know: on the page until the next reload."""
        self.status.notice = (self.status.notice + " " + text).strip()

    def _warn(self, text: str) -> None:
        self.notice(text)
        say("warning: " + text)

    def _tell_drift(self, camera: int, look: bool, reason: str) -> None:
        label = self.runner.views[camera].camera.source.label
        self.journal.add("camera drifted" if look else "camera as before", camera=camera, source=label, reason=reason)
        say(f"camera {camera} {'is not as it was, look at it' if look else 'is as before'}: {reason}")

    def choose(self, contents: manifest.Manifest, variant: Any) -> List[tradeoff.Entry]:
        """The variants to compare while `variant` runs; UsageError for one that is not in this bundle."""
        args = self.args
        if args.tradeoff == "off":
            return []
        return tradeoff.choose(contents, args.tradeoff, args.runtime, variant, tradeoff.engine_is_cached(contents))

    def compare(self, entries: List[tradeoff.Entry]) -> None:
        """Start the live trade-off and the governor, where they are wanted."""
        args = self.args
        self.tradeoff = self.governor = self.status.tradeoff = self.status.governor = None
        self.runner.spare = None
        if len(entries) < 2 and args.governor:
            self._warn("The governor has no second variant to switch to: --governor does nothing.")
        names = [] if args.tradeoff in ("auto", "off") else [name.strip() for name in args.tradeoff.split(",")]
        absent = [name for name in names if name and name not in [entry.variant.name for entry in entries]]
        if absent:
            self._warn(f"Not compared, since no engine here runs it: {', '.join(absent)}.")
        self.alone = len(entries) < 2 and not (entries and self.truths)
        if self.alone:
            return
        self.tradeoff = tradeoff.TradeOff(
            entries,
            self.detector,
            self.runner.score,
            args.budget / 100,
            self.truths,
            lambda: self.board.state().get("total_mw"),
            self.manifest.classes,
        ).start()
        self.tradeoff.in_use = lambda detector: self.runner.active.detector is detector
        if self.drift is not None:
            reference = self.tradeoff.reference
            self.tradeoff.on_sample = functools.partial(
                self.drift.sample, drift.model_key(reference.variant, reference.runtime)
            )
        self.runner.spare = self.tradeoff.spare
        self.status.tradeoff = self.tradeoff
        if args.governor:
            self.governor = governor.Governor(
                governor.parse(args.governor), self.runner, self.tradeoff, self._switch, self.board.state, say
            )
            self.status.governor = self.governor

    def _switch(self, entry: tradeoff.Entry, reason: str) -> None:
        before, comparing, detector = self.runner.active.variant.name, self.tradeoff, entry.detector
        if detector is None or comparing is None or entry not in comparing.entries:
            return  # its engine has died, or a reload has brought others, since the governor looked
        self.runner.swap(entry.variant, detector, own=False)
        self.journal.add("switched", reason=f"{before} to {entry.variant.name}: {reason}")
        say(f"governor: {before} to {entry.variant.name}: {reason}")

    def _handle(self, request: Any) -> Any:
        return self.site.handle(request)

    def _healthz(self, request: Any) -> Response:
        if self.site is None:
            return Response(
                503,
                b'{"ok": false, "status": "starting", "reason": "the engine is being opened"}\n',
                "application/json",
                {"Retry-After": "2"},
            )
        return self.site.handle(request)

    def _viewers(self, topic: str, count: int) -> None:
        self.site.viewers(topic, count)

    def _announce(self, guard: access.Access, token: Optional[str]) -> None:
        url = self._url(address(self.args.host))
        active = self.runner.active
        say(
            "serving {} with {} on {}".format(
                ", ".join(view.camera.source.label for view in self.runner.views),
                active.variant.name,
                active.detector.engine.runtime,
            )
        )
        if token is None:
            say(f"live page: {url}")
            if loopback(self.args.host):
                say(
                    f"from another machine: ssh -L {self.door.port}:127.0.0.1:{self.door.port} USER@THIS-MACHINE, then open that address"
                )
            else:
                say("warning: --insecure: everybody who reaches this port can look in")
        else:
            self._say_code(guard, url)
            if not self.args.token_file:
                say(f"token for programs (Authorization: Bearer …): {token}")
        if self.args.ready_file:
            here = "127.0.0.1" if self.args.host in ("0.0.0.0", "::") else self.args.host
            files.write_json(self.args.ready_file, {"url": self._url(here), "pid": os.getpid()})

    def _url(self, host: str) -> str:
        return f"http://{(f'[{host}]' if ':' in host else host)}:{self.door.port}/"

    def _say_code(self, guard: access.Access, url: str) -> None:
        self.guard, self.url, self.said = guard, url, guard.code
        say(f"live page, this address works once: {url}{access.CODE_PATH[1:]}?code={guard.code}")

    # -- while it runs ---------------------------------------------------------------------------------------------

    def _tell_event(self, event: Dict[str, Any]) -> None:
        if self.site is not None:
            self.site.tell("event", event)
        if self.mqtt is not None:
            self.mqtt.event(event)

    def _on_result(self, view: View, frame: Any, result: Result) -> None:
        camera = view.camera
        self.studio.offer(camera.index, frame.image, result)
        comparing = self.tradeoff  # a reload may take it away meanwhile
        if comparing is not None:
            comparing.offer(frame.image, camera.index)
        if self.drift is not None and self.drift.see(camera.index, frame.image) and self.alone:
            active, sure = self.runner.active, result.faces.confidence >= self.runner.score
            self.drift.sample(
                drift.model_key(active.variant, active.detector.engine.runtime),
                camera.index,
                frame.image.shape[0],
                Faces(result.faces.xyxy[sure], result.faces.scores[sure]),
            )
        if self.journal.crops_on:
            for face in result.tracks:
                if face.confirmed and face.seen >= result.arrived:
                    quality = face.confidence * float(face.xyxy[3] - face.xyxy[1])
                    self.journal.keep_crop(
                        f"{camera.index}-{face.number}",
                        quality,
                        functools.partial(crop, frame.image, face.xyxy),
                    )
        with view.tracking:  # a reload may bring other lines
            passed = self.zones[camera.index].update(view.tracker.tracks, result.frame_wh, result.arrived)
        if result.events or passed:
            wall, monotonic, classes = time.time(), time.monotonic(), self.manifest.class_list
            for event in result.events:
                fields = from_track(event, camera.index, camera.source.label, wall, monotonic, classes)
                self.journal.add(event.kind, **fields)
            for one in passed:
                fields = from_track(one, camera.index, camera.source.label, wall, monotonic, classes)
                self.journal.add(one.kind, **dict(fields, **one.place()))

    def run(self) -> int:
        """Serve until told to end; the exit code."""
        known = ["" for _ in self.runner.views]
        state_due = beat_due = look_due = beat = 0.0
        awake = time.monotonic()
        self.notifier.ready(f"serving on port {self.door.port}")
        while not self.stop.wait(0.1):
            now = time.monotonic()
            if now - awake > _ASLEEP_S:
                beat_due = now + 1.0  # the whole process was stopped: the inference loop has to wake up first, too
            awake = now
            if self.reload.is_set() and (self.reloader is None or not self.reloader.is_alive()):
                self.reload.clear()
                # Building an engine takes minutes; meanwhile the keeper must go on hearing that all is well.
                self.reloader = threading.Thread(target=reload.reload, args=(self,), name="reload", daemon=True)
                self.reloader.start()
            self._watch_cameras(known)
            if now >= state_due:
                state_due = now + 0.5
                state = self.status.state()
                self.site.tell("state", state)
                if self.mqtt is not None:
                    self.mqtt.counts(state)
            comparing, governing = self.tradeoff, self.governor  # a reload may take them away meanwhile
            if now >= look_due and comparing is not None:
                look_due = now + 1.0
                comparing.active = self.runner.active.variant.name
                comparing.note_power()
                if governing is not None:
                    governing.step()
            if now >= beat_due:
                beat_due = now + min(1.0, self.notifier.watchdog_s or 1.0)
                health = self.status.health()
                if health["ok"] and self.runner.beat > beat:  # the keeper hears the loop's heartbeat, not this one's
                    beat = self.runner.beat
                    self.notifier.beat(f"{health['status']}, {self.runner.rate.value(now):.1f} frames/s")
                elif not health["ok"]:
                    say(f"error: {health['reason']}; ending, so that the keeper starts a new process")
                    return 1
            if getattr(self, "said", None) is not None and self.said != self.guard.code:
                self._say_code(self.guard, self.url)
            if self.args.once and self.runner.ended:
                say(f"the source has ended after {self.runner.results} results")
                break
            if self.args.once and not self.args.wait_for_source and self._beyond_help():
                return BadInput.exit_code
        return 0

    def _beyond_help(self) -> bool:
        """Whether every file has ended or cannot be read: nothing more would come."""
        cameras = [view.camera for view in self.runner.views]
        # Three times, since a process may have been killed by something else.
        bad = [one for one in cameras if one.status == "lost" and not one.source.live and one.restarts >= 2]
        if (
            not bad
            or len(bad) + sum(camera.status == "ended" for camera in cameras) < len(cameras)
            or not self.runner.drained
        ):
            return False
        for camera in bad:
            say(f"error: {camera.source.label}: {camera.last_error}")
        return True

    def _watch_cameras(self, known: List[str]) -> None:
        for number, view in enumerate(self.runner.views):
            camera = view.camera
            if camera.status == known[number]:
                continue
            before, known[number] = known[number], camera.status
            if camera.status == "lost":
                self.journal.add("camera lost", camera=number, source=camera.source.label, reason=camera.last_error)
                say(f"camera {number} lost: {camera.last_error}")
            elif camera.status == "live" and before == "lost":
                self.journal.add("camera back", camera=number, source=camera.source.label)
                say(f"camera {number} is back")
            if camera.status == "lost":
                self.site.no_picture(number, ["No picture", camera.source.label, camera.last_error])
            elif camera.status == "starting":
                self.site.no_picture(number, ["Starting", camera.source.label])

    # -- end --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything that was started, in the order of the data."""
        if hasattr(self, "runner"):
            self.runner.stop()
        if getattr(self, "tradeoff", None) is not None:
            self.tradeoff.stop()
        if getattr(self, "drift", None) is not None:
            self.drift.stop()
        if hasattr(self, "board"):
            self.board.stop()
        if hasattr(self, "studio"):
            self.studio.stop()
        if hasattr(self, "door"):
            self.door.stop()
            self.server.stop()
        if self.mqtt is not None:
            self.mqtt.stop()
        if hasattr(self, "journal"):
            self.journal.close()
