"""SIGHUP: the file of lines and zones and the bundle are read again. What is wrong is told, and the old goes on.

The bundle is tested by its golden inputs before it takes over. Counts at lines and zones go on under the same name.
"""

import os
import threading
from typing import Any, List, Optional

from jetson.adapt.auto import AUTO
from jetson.bundle import manifest
from jetson.config import settings as config
from jetson.errors import BadInput, JetmaskError
from jetson.inference import golden
from jetson.monitor.watchdog import say
from jetson.serve import fromfile
from jetson.serve.cameras import change, check_alerts, places_of, privacy_of, replace_zones
from jetson.serve.service import Service
from jetson.serve.variant import begin
from jetson.tracking import zones
from jetson.tracking.zones import Counter

LOOK_S = 1.0  # between two looks at the file


class Watch:
    """Whether a file has changed and is at rest again; None: there is none to watch. `changed` may be called often."""

    def __init__(self, path: Optional[str]) -> None:
        self._path = path
        self._due = 0.0
        self._known = self._seen = self._look()

    def _look(self) -> Any:
        try:
            found = os.stat(self._path) if self._path else None
        except OSError:
            return None  # an editor is just replacing it
        return found and (found.st_mtime_ns, found.st_size, found.st_ino)

    def changed(self, now: float) -> bool:
        """Whether it is another one than at the last time this was said, and the same as a look ago."""
        if self._path is None or now < self._due:
            return False
        self._due = now + LOOK_S
        before, self._seen = self._seen, self._look()
        if self._seen is None or self._seen != before or self._seen == self._known:
            return False
        self._known = self._seen
        return True


def reload(service: Service, stop: threading.Event, everything: bool = True) -> None:
    """Read again what `service` was given; in a thread of its own, since building takes minutes.

    `everything` False: the file of settings has changed, and the bundle is left alone.
    """
    service.notifier.send("RELOADING=1")
    service.status.notices.clear()
    try:
        if service.settings.config:
            _config(service, service.settings.config)
        if service.settings.zones:
            _zones(service, service.settings.zones)
        if everything:
            _bundle(service, stop)
    finally:
        service.notifier.ready(f"serving on port {service.port}")


def _refused(service: Service, what: str, error: Exception) -> None:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, BadInput) and error.where is not None:
        reason += f" ({error.where})"
    service.status.notices.add(f"The new {what} was refused; the old one stays in use: {reason}")
    service.journal.add("reload refused", reason=reason)
    say(f"reload refused; the old {what.partition(' was')[0]} stays in use: {error}")


def _config(service: Service, path: str) -> None:
    try:
        found = fromfile.checked(config.read(path))
        wanted = fromfile.cameras(found, service.settings, tell=False)
        check_alerts(found.alerts, wanted, service.status.manifest.class_list)
    except JetmaskError as error:
        _refused(service, "configuration was", error)
        return
    done = change(service, wanted)
    later = _later(service.settings.file, found)
    told = privacy_of(service.settings, wanted)
    if service.recorder is None and (told["pictures_stored"] or told["frames_stored"]):
        later.append("pictures and clips are kept from the next start on.")
        told = dict(told, pictures_stored=False, frames_stored=False)
    service.status.privacy.update(told)
    if service.alerts is None:
        if service.settings.alerts.same_as(found.alerts) is False:
            later.append("alerts are set up in the configuration for the first time: they begin at the next start.")
    elif not service.alerts.settings.same_as(found.alerts):
        try:
            service.alerts.apply(found.alerts)
            done.append("alerts are as the file says")
        except JetmaskError as error:  # a secret that is not there: cameras are watched all the same
            _refused(service, "alerts were", error)
        if found.alerts.outbox != service.settings.alerts.outbox:
            later.append("alerts.outbox has changed in the configuration: it takes effect at the next start.")
    for text in later:
        service.status.notices.add(text)
        say(text)
    if done:
        service.counts.save(service.runner.views)
        service.journal.add("reloaded", reason="; ".join(done))
        say(f"{path}: " + "; ".join(done))


def _later(began: Optional[config.Settings], found: config.Settings) -> List[str]:
    """What of a changed file only the next start brings."""
    if began is None:
        return []
    names = [
        name
        for name in ("engine", "compare", "events", "drift", "page", "mqtt")
        if getattr(began, name) != getattr(found, name)
    ]
    return [f"{name} has changed in the configuration: it takes effect at the next start." for name in names]


def _zones(service: Service, path: str) -> None:
    views = service.runner.views
    try:
        places = zones.load(path, len(views))
    except BadInput as error:
        _refused(service, "file of lines and zones was", error)
        return
    counters = [
        Counter([one for one in places if one.camera == camera], view.classes.names)
        for camera, view in enumerate(views)
    ]
    if all(new.same_places(view.zones) for new, view in zip(counters, views)):
        return
    for counter, view in zip(counters, views):
        replace_zones(service, view, counter)
    if service.mqtt is not None:
        service.mqtt.cameras = places_of(views)
    service.journal.add("reloaded", reason=f"{len(places)} lines and zones")
    say(f"now counting at the {len(places)} lines and zones of {path}")


def _bundle(service: Service, stop: threading.Event) -> None:
    settings = service.settings
    say(f"reloading {settings.bundle}")
    try:
        manifest.verify(settings.bundle)
        fresh = manifest.load(settings.bundle)
        known = service.status.manifest.class_list
        if fresh.class_list != known:  # counts and votes so far are of the old ones
            raise BadInput(
                "the new bundle has other classes or roles",
                settings.bundle,
                ", ".join(known.names),
                "restart the runner; its counts then start from zero",
            )
        if settings.variant == AUTO:
            sources = [view.camera.source for view in service.runner.views]
            variant, unused = begin(settings, fresh, sources, service.open_variant)
            unused.close()  # its golden inputs come first
        else:
            variant = fresh.variant(settings.variant)
        entries = service.comparing.choose(fresh, variant)
        golden.require(settings.bundle, variant.name, settings.runtime)
        detector = service.open_variant(variant, None)
        if stop.is_set():
            detector.close()
            return
    except Exception as error:  # whatever is wrong with it: the old one goes on
        service.status.refused()
        _refused(service, "bundle was", error)
        return

    def swap() -> None:
        service.runner.swap(variant, detector)
        service.studio.score = service.runner.score
        service.status.reloaded(fresh)

    service.comparing.replace(service.runner, swap, entries)
    service.journal.add("reloaded", bundle=fresh.name, variant=variant.name)
    say(f"now running {fresh.name} {variant.name}")
