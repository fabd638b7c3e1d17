"""SIGHUP: the file of lines and zones and the bundle are read again. What is wrong is told, and the old goes on.

The bundle is tested by its golden inputs before it takes over. Counts at lines and zones go on under the same name.
"""

import threading

from jetson.bundle import manifest
from jetson.errors import BadInput
from jetson.inference import golden
from jetson.monitor.watchdog import say
from jetson.serve.results import record
from jetson.serve.service import Service
from jetson.tracking import zones
from jetson.tracking.zones import Counter


def reload(service: Service, stop: threading.Event) -> None:
    """Read again what `service` was given; in a thread of its own, since building takes minutes."""
    service.notifier.send("RELOADING=1")
    service.status.notices.clear()
    try:
        if service.settings.zones:
            _zones(service, service.settings.zones)
        _bundle(service, stop)
    finally:
        service.notifier.ready(f"serving on port {service.port}")


def _refused(service: Service, what: str, error: Exception) -> None:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, BadInput) and error.where is not None:
        reason += f" ({error.where})"
    service.status.notices.add(f"The new {what} refused, the old one goes on: {reason}")
    service.journal.add("reload refused", reason=reason)
    say(f"reload refused, the old {what.partition(' was')[0]} goes on: {error}")


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
        with view.tracking:  # no frame is counted in between
            left = counter.go_on_from(view.zones)
            view.zones = counter
        record(service.journal, view, [], left)
    if service.mqtt is not None:
        service.mqtt.cameras = [view.zones.names() for view in views]
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
                "start the runner again: its counts begin anew then",
            )
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
