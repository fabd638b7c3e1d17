"""SIGHUP: the file of lines and zones and the bundle are read again. What is wrong is told, and the old goes on.

The bundle is tested by its golden inputs before it takes over. Counts at lines and zones go on under the same name.
"""

import threading
import time
from typing import Any

from jetson.bundle import manifest
from jetson.errors import BadInput
from jetson.inference import golden
from jetson.monitor.journal import from_track
from jetson.monitor.watchdog import say
from jetson.tracking import zones
from jetson.tracking.zones import Counter

_LAST_SAMPLE_S = 5.0


def reload(live: Any) -> None:
    """Read again what `live` (jetson.serve.live.Live) was given; in a thread of its own, since building takes minutes."""
    live.notifier.send("RELOADING=1")
    live.status.notice = ""
    try:
        if live.args.zones:
            _zones(live)
        _bundle(live)
    finally:
        live.notifier.ready(f"serving on port {live.door.port}")


def _refused(live: Any, what: str, error: Exception) -> None:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, BadInput) and error.where is not None:
        reason += f" ({error.where})"
    live.notice(f"The new {what} refused, the old one goes on: {reason}")
    live.journal.add("reload refused", reason=reason)
    say(f"reload refused, the old {what.partition(' was')[0]} goes on: {error}")


def _zones(live: Any) -> None:
    try:
        places = zones.load(live.args.zones, len(live.zones))
    except BadInput as error:
        _refused(live, "file of lines and zones was", error)
        return
    names = live.manifest.classes
    counters = [Counter([one for one in places if one.camera == camera], names) for camera in range(len(live.zones))]
    if all(new.same_places(old) for new, old in zip(counters, live.zones)):
        return
    for number, view in enumerate(live.runner.views):
        with view.tracking:  # no frame is counted in between
            left = counters[number].go_on_from(live.zones[number])
            live.zones[number] = counters[number]
        wall, monotonic = time.time(), time.monotonic()
        for one in left:
            fields = from_track(one, number, view.camera.source.label, wall, monotonic, live.manifest.class_list)
            live.journal.add(one.kind, **dict(fields, **one.place()))
    if live.mqtt is not None:
        live.mqtt.cameras = [one.names() for one in live.zones]
    live.journal.add("reloaded", reason=f"{len(places)} lines and zones")
    say(f"now counting at the {len(places)} lines and zones of {live.args.zones}")


def _bundle(live: Any) -> None:
    args = live.args
    say(f"reloading {args.bundle}")
    try:
        manifest.verify(args.bundle)
        fresh = manifest.load(args.bundle)
        if fresh.class_list != live.manifest.class_list:  # counts and votes so far are of the old ones
            raise BadInput(
                "the new bundle has other classes or roles",
                args.bundle,
                ", ".join(live.manifest.classes),
                "start the runner again: its counts begin anew then",
            )
        variant = fresh.variant(args.variant)
        entries = live.choose(fresh, variant)
        golden.require(args.bundle, variant.name, args.runtime)
        detector = live.detector(variant)
        if live.stop.is_set():
            detector.close()
            return
    except Exception as error:  # whatever is wrong with it: the old one goes on
        live.status.failed_reloads += 1
        _refused(live, "bundle was", error)
        return
    live.runner.spare = None
    # Before the swap: the governor must not switch back to an engine that is put away.
    old, live.tradeoff = live.tradeoff, None
    live.runner.swap(variant, detector)
    live.studio.score = live.runner.score
    live.manifest = live.status.manifest = fresh
    live.compare(entries)
    if old is not None:
        # The inferring thread may be inside its last sample; its engines go when it is out.
        closing = threading.Timer(_LAST_SAMPLE_S, old.stop)
        closing.daemon = True
        closing.start()
    live.status.reloads += 1
    live.journal.add("reloaded", bundle=fresh.name, variant=variant.name)
    say(f"now running {fresh.name} {variant.name}")
