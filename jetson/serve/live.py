"""The live service: cameras, detector, page and supervision put together; runs until it is told to end."""

import contextlib
import os
import sqlite3
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from jetson import files
from jetson.adapt.auto import AUTO
from jetson.alerts import settings as alert_settings
from jetson.alerts.alerts import Alerts
from jetson.bundle import manifest
from jetson.bundle.classes import Classes
from jetson.capture.camera import Camera
from jetson.errors import BadInput
from jetson.evaluation import average_precision
from jetson.events.media import Kept, Media
from jetson.events.store import Store
from jetson.inference.detector import Detector
from jetson.inference.isolated import open_for_threads
from jetson.inference.runner import Runner
from jetson.monitor import drift
from jetson.monitor.board import Board
from jetson.monitor.clock import WallClock
from jetson.monitor.journal import Journal
from jetson.monitor.status import Notices, Status
from jetson.monitor.watchdog import Notifier, say
from jetson.mqtt import settings as broker
from jetson.mqtt.publisher import Mqtt
from jetson.net import address, loopback
from jetson.serve import reload
from jetson.serve.cameras import check_alerts, pictures_of, places_of, privacy_of
from jetson.serve.comparing import Comparing
from jetson.serve.counts import Counts, default_path
from jetson.serve.drawn import saver_for
from jetson.serve.progress import Progress
from jetson.serve.recorder import Recorder
from jetson.serve.reload import Watch
from jetson.serve.results import Results
from jetson.serve.service import Service
from jetson.serve.settings import Settings
from jetson.serve.variant import begin
from jetson.serve.watched import Watched
from jetson.tracking.zones import Counter
from jetson.web import access
from jetson.web.history import History
from jetson.web.http import Request, Response
from jetson.web.listener import Door
from jetson.web.marks import Marks
from jetson.web.picture import Pictures, Studio
from jetson.web.server import Server
from jetson.web.site import Site
from jetson.web.users import User

HISTORY = "events.sqlite3"
MEDIA = "-media"  # what the folder of pictures is called after the file of events
_SWEPT_S = 3600.0  # before the newest event: what a kill left without an event is younger
_ASLEEP_S = 10.0
_STARTING = b'{"ok": false, "status": "starting", "reason": "the engine is being opened"}\n'


def default_threads() -> int:
    """Threads of one inference: one core is left for capture, drawing and serving."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


class _Front:
    """Answers from the moment the port is taken; until the engine is open, that it is starting."""

    def __init__(self) -> None:
        self.site: Optional[Site] = None

    def handle(self, request: Request) -> Response:
        site = self.site
        if site is None:
            return Response(503, _STARTING, "application/json", {"Retry-After": "2"})
        return site.handle(request)

    def viewers(self, topic: str, count: int) -> None:
        if self.site is not None:
            self.site.viewers(topic, count)


class _Teller:
    """Events of the journal, to the store, the page, the broker and the alerts."""

    def __init__(self, front: _Front, mqtt: Optional[Mqtt], store: Optional[Store]) -> None:
        self._front = front
        self._mqtt = mqtt
        self._store = store
        self.alerts: Optional[Alerts] = None

    def event(self, event: Dict[str, Any]) -> None:
        if self._store is not None:
            self._store.add(event)
        if self._front.site is not None:
            self._front.site.tell("event", event)
        if self._mqtt is not None:
            self._mqtt.event(event)
        if self.alerts is not None:
            self.alerts.event(event)


def _store_for(settings: Settings, warn: Callable[[str], None]) -> Optional[Store]:
    """The file of events that was asked for, or the usual one where there is a place for it; None: none is kept.

    A file that was named and is no use is an error; the usual one is only warned about, for the camera matters more.
    """
    path, state = settings.history, os.environ.get("JETMASK_STATE")
    if path == "off" or (path is None and not state):
        return None
    try:
        store = Store(path or os.path.join(state or "", HISTORY), settings.history_days, settings.history_mb).start()
    except BadInput as error:
        if path:
            raise
        warn("Events are not kept: {}".format(", ".join(str(error).split("\n  "))))
        return None
    if store.damaged:
        warn(f"The file of events was damaged; it is now {store.damaged}, and a new one was begun.")
    return store


def _media_for(settings: Settings, store: Optional[Store], warn: Callable[[str], None]) -> Optional[Media]:
    """The folder of pictures and clips beside the events; None where no camera asks for any or no events are kept.

    What was kept before and is no longer asked for goes with its events all the same.
    """
    asked = settings.kept
    cameras = settings.file.cameras if settings.file is not None else ()
    wanted = asked.pictures != "off" or asked.clips.seconds > 0 or any(one.pictures for one in cameras)
    if store is None:
        if wanted:
            warn("Pictures and clips of events are not kept, because no events are.")
        return None
    folder = os.path.splitext(store.path)[0] + MEDIA
    if not wanted and not os.path.isdir(folder):
        return None
    try:
        media = Media(folder, asked.media_mb)
        since = max(0.0, store.newest() - _SWEPT_S)
        media.sweep(since, store.keys(since - _SWEPT_S))
    except (BadInput, sqlite3.Error) as error:
        warn("Pictures of events are not kept: {}".format(", ".join(str(error).split("\n  "))))
        return None
    store.tidied = media.tidy
    return media


def _alerts_for(
    settings: Settings,
    cameras: Sequence[Watched],
    classes: Classes,
    journal: Journal,
    kept: Callable[[Union[int, str], Optional[int], float], Kept],
) -> Optional[Alerts]:
    """Rules and receivers of the file; None without any."""
    asked = settings.alerts
    if not asked.receivers:
        return None
    check_alerts(asked, cameras, classes)
    outbox = asked.outbox or alert_settings.default_outbox()
    return Alerts(asked, classes, outbox, say, journal.add, kept)


class Live:
    """One running `serve`. `publishing`: None without a broker."""

    def __init__(self, settings: Settings, publishing: Optional[broker.Settings] = None) -> None:
        self.settings = settings
        self.publishing = publishing
        self.stop = threading.Event()
        self.reload = threading.Event()  # the file, and the bundle
        self.changed = threading.Event()  # the file alone
        self.notifier = Notifier()
        self._reloader: Optional[threading.Thread] = None
        self._parts = contextlib.ExitStack()  # what was started, to be ended in the order of the data
        self._service: Optional[Service] = None
        self._said = ""

    # -- start ----------------------------------------------------------------------------------------------------

    def open(self, cameras: Sequence[Watched], users: Sequence[User]) -> None:
        """Read the bundle, open the engine, start everything; no `users`: open to all. JetmaskError on a mistake."""
        settings, ending = self.settings, self._parts.callback
        contents = manifest.load(settings.bundle)
        classes = contents.class_list
        truths = average_precision.load_split(settings.eval, classes.names) if settings.eval else []
        sources = [camera.source for camera in cameras]
        counters = [Counter(camera.settings.zones, classes.names) for camera in cameras]
        if settings.variant != AUTO:
            contents.variant(settings.variant)  # a wrong name is told before anything is opened
        front, notices = _Front(), Notices()

        def warn(text: str) -> None:
            notices.add(text)
            say("warning: " + text)

        mqtt = Mqtt(self.publishing, say) if self.publishing is not None else None
        store = _store_for(settings, warn)
        if store is not None:
            ending(store.close)
        teller = _Teller(front, mqtt, store)
        journal = Journal(settings.events, settings.crops, teller.event)
        ending(journal.close)
        alerts = _alerts_for(settings, cameras, classes, journal, self._kept)
        if alerts is not None:
            ending(alerts.stop)
        if mqtt is not None:
            ending(mqtt.stop)
        headers = access.headers(settings.frame_ancestors)
        # The port is taken before the engine is opened: a wrong port is told at once, not after minutes of building.
        server = Server(front.handle, front.viewers, headers)
        ending(server.stop)
        door = Door(settings.host, settings.port, front.handle, server.admit, headers).start()
        ending(door.stop)
        guard = access.Access(users, settings.allow_host, str(door.port), bool(settings.frame_ancestors))
        variant, detector = begin(settings, contents, sources, self._open_variant)
        unused = self._parts.enter_context(contextlib.ExitStack())
        unused.callback(detector.close)  # until the runner has it
        score = contents.decode["score"] if settings.score is None else settings.score
        pictures = Pictures(server)
        studio = Studio(
            len(sources),
            pictures.show,
            settings.stream_fps,
            settings.blur_faces,
            score,
            lambda number: _places(runner, number),
            classes,
        )
        for number, one in enumerate(cameras):
            studio.film(number, one.settings.blur, one.settings.score)
        ending(studio.stop)
        media = _media_for(settings, store, warn)
        recorder = Recorder(media, studio, settings.kept.clips, settings.kept.blur) if media is not None else None
        if recorder is not None:
            for number, one in enumerate(cameras):
                recorder.film(number, pictures_of(settings, one), one.settings.clips, one.settings.score)
            ending(recorder.start().stop)
        board = Board().start()
        ending(board.stop)
        seen = drift.open_for(
            settings.drift,
            settings.drift_days,
            sources,
            lambda number, look, reason: _tell_drift(journal, *self._called(cameras, number), look, reason),
            warn,
            [camera.settings.was for camera in cameras],
        )
        if seen is not None:
            ending(seen.stop)
        comparing = Comparing(settings, self._open_variant, truths, board, seen, journal, warn)
        ending(comparing.stop)
        results = Results(studio, comparing, seen, journal, recorder)
        runner = Runner(
            list(sources),
            variant,
            detector,
            settings.score,
            settings.every_frame,
            results,
            reopen=lambda failed: self._open_variant(failed, None),
            zones=counters,
            classes=classes,
            scores=[camera.settings.score for camera in cameras],
        )
        counts = Counts(default_path(), classes.names, warn)
        ending(lambda: counts.save(runner.views))
        ending(runner.stop)
        for view, one in zip(runner.views, cameras):
            counts.go_on(view, one.settings.was)
        unused.pop_all()
        privacy = dict(privacy_of(settings, cameras, recorder is not None), events_file=bool(settings.events or store))
        status = Status(
            contents, runner, journal, board, comparing, server, mqtt, seen, privacy, notices, alerts, recorder
        )
        history = History(store, server.publish, media)
        ending(history.close)
        marks = Marks(saver_for(settings, runner, self.changed), server.publish)
        ending(marks.close)
        site = Site(status, journal, guard, server, pictures, studio, history, marks, alerts)
        self._service = Service(
            settings,
            runner,
            comparing,
            journal,
            status,
            studio,
            site,
            guard,
            door.port,
            self.notifier,
            mqtt,
            seen,
            alerts,
            counts,
            recorder,
            dict(enumerate(cameras)),
            self._open_variant,
        )
        comparing.start(runner, comparing.choose(contents, variant))
        front.site = site
        teller.alerts = alerts
        if alerts is not None:
            alerts.start()
        runner.start()
        server.start()
        if mqtt is not None:
            mqtt.since = counts.since
            mqtt.start(places_of(runner.views), board.state().get("model") or "", classes.names)
        self._announce(self._service, users)

    def _called(self, cameras: Sequence[Watched], number: int) -> Tuple[Union[int, str], str, str]:
        """How events and messages call the camera of this number, and its address as it may be shown."""
        if self._service is not None:
            for view in self._service.runner.views:
                if view.camera.index == number:
                    return view.key, view.title, view.camera.source.label
        where = cameras[number].source
        return where.name or number, where.name or f"camera {number}", where.label

    def _kept(self, camera: Union[int, str], person: Optional[int], at: float) -> Kept:
        """What is kept of an alert; a clip of it begins."""
        service = self._service
        found = Kept()
        if service is None:
            return found
        if service.recorder is not None:
            numbers = [view.camera.index for view in service.runner.views if view.key == camera]
            found = service.recorder.alert(numbers[0], person, at) if numbers else found
        if found.jpeg is None and person is not None:
            found = found._replace(jpeg=service.journal.crop(f"{camera}-{person}"))
        return found

    def _open_variant(self, variant: manifest.Variant, runtime: Optional[str]) -> Detector:
        settings = self.settings
        return open_for_threads(
            settings.bundle, variant, runtime or settings.runtime, settings.threads or default_threads()
        )

    def _announce(self, service: Service, users: Sequence[User]) -> None:
        settings = self.settings
        url = self._url(service, address(settings.host))
        active = service.runner.active
        names = ", ".join(view.camera.source.label for view in service.runner.views)
        say(f"serving {names} with {active.variant.name} on {active.detector.engine.runtime}")
        if not users:
            say(f"live page: {url}")
            if loopback(settings.host):
                say(
                    f"from another machine: ssh -L {service.port}:127.0.0.1:{service.port} USER@THIS-MACHINE, "
                    "then open that address"
                )
            else:
                say("warning: --insecure: anyone who reaches this port can see the page")
        else:
            self._say_code(service)
            if not settings.token_file and not settings.users:
                say(f"token for programs (Authorization: Bearer …): {users[0].token}")
        if settings.ready_file:
            here = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
            files.write_json(settings.ready_file, {"url": self._url(service, here), "pid": os.getpid()})

    def _url(self, service: Service, host: str) -> str:
        return f"http://{(f'[{host}]' if ':' in host else host)}:{service.port}/"

    def _say_code(self, service: Service) -> None:
        self._said = service.guard.code
        url = self._url(service, address(self.settings.host))
        say(f"live page, this address works once: {url}{access.CODE_PATH[1:]}?code={self._said}")

    # -- while it runs ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to end; the exit code."""
        service = self._service
        assert service is not None  # open() has returned
        runner, once = service.runner, self.settings.once
        known: Dict[int, str] = {}
        watch = Watch(self.settings.config)
        progress = Progress([view.camera for view in runner.views]) if once else None
        clock = WallClock()
        state_due = beat_due = beat = 0.0
        awake = time.monotonic()
        self.notifier.ready(f"serving on port {service.port}")
        while not self.stop.wait(0.1 if once else 0.25):
            now = time.monotonic()
            if now - awake > _ASLEEP_S:
                beat_due = now + 1.0  # the whole process was stopped: the inference loop has to wake up first, too
            awake = now
            if watch.changed(now):
                self.changed.set()
            if (self.reload.is_set() or self.changed.is_set()) and (
                self._reloader is None or not self._reloader.is_alive()
            ):
                everything = self.reload.is_set()
                self.reload.clear()
                self.changed.clear()
                # Building an engine takes minutes; meanwhile the keeper must go on hearing that all is well.
                self._reloader = threading.Thread(
                    target=reload.reload, args=(service, self.stop, everything), name="reload", daemon=True
                )
                self._reloader.start()
            _watch_cameras(service, known)
            if now >= state_due:
                state_due = now + 0.5
                stepped = clock.step()
                if stepped:
                    say(f"the clock was set by {stepped:+.0f} s; events of before carry the correction")
                    service.journal.clock_stepped(stepped)
                self._tell_state(service)
            service.counts.turn(runner.views, now)
            service.comparing.turn(now, runner.active.variant.name)
            if now >= beat_due:
                beat_due = now + min(1.0, self.notifier.watchdog_s or 1.0)
                health = service.status.health()
                if health["ok"] and runner.beat > beat:  # the keeper hears the loop's heartbeat, not this one's
                    beat = runner.beat
                    self.notifier.beat(f"{health['status']}, {runner.rate.value(now):.1f} frames/s")
                elif not health["ok"]:
                    say(f"error: {health['reason']}; exiting, so that the supervisor starts a new process")
                    return 1
            if self._said and self._said != service.guard.code:
                self._say_code(service)
            if progress is not None:
                progress.turn(now)
            if once and runner.ended:
                return _end_of_sources(runner)
        return 0

    def _tell_state(self, service: Service) -> None:
        service.journal.retry()
        if not service.site.listened and service.mqtt is None:
            return  # nobody asks
        state = service.status.state()
        service.site.tell("state", state)
        if service.mqtt is not None:
            service.mqtt.counts(state)

    # -- end --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything that was started, in the order of the data."""
        self._parts.close()


def _places(runner: Runner, number: int) -> Dict[str, Any]:
    """The lines and zones of the camera of this number."""
    found = [view.zones.state() for view in runner.views if view.camera.index == number]
    return found[0] if found else {"lines": [], "zones": []}


def _tell_drift(journal: Journal, camera: Union[int, str], title: str, label: str, look: bool, reason: str) -> None:
    journal.add("camera drifted" if look else "camera as before", camera=camera, source=label, reason=reason)
    say(f"{title} {'looks different from its reference, check it' if look else 'looks as before again'}: {reason}")


def _end_of_sources(runner: Runner) -> int:
    """Every source has been read: what was found stays; the exit code tells whether all of them were whole."""
    bad: List[Camera] = [view.camera for view in runner.views if view.camera.broken]
    for camera in bad:
        say(f"error: {camera.source.label}: {camera.broken}")
    say(f"the source has ended after {runner.results} results")
    return BadInput.exit_code if bad else 0


def _watch_cameras(service: Service, known: Dict[int, str]) -> None:
    """Tell what has happened to cameras; `known`: their states of before by number."""
    for view in service.runner.views:
        camera, number = view.camera, view.camera.index
        if camera.status == known.get(number):
            continue
        before, known[number] = known.get(number), camera.status
        label = camera.source.label
        if camera.status == "lost":
            service.journal.add("camera lost", camera=view.key, source=label, reason=camera.last_error)
            say(f"{view.title} lost: {camera.last_error}")
        elif camera.status == "live" and before == "lost":
            service.journal.add("camera back", camera=view.key, source=label)
            say(f"{view.title} is back")
        if camera.status == "lost":
            service.site.pictures.none(number, ["No picture", label, camera.last_error])
        elif camera.status == "starting":
            service.site.pictures.none(number, ["Starting", label])
