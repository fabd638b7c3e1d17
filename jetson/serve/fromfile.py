"""`serve --config FILE`: what the file says, with what the command line may say beside it."""

import argparse
from typing import Any, Dict, List, Optional

from jetson.adapt import governor
from jetson.capture import source
from jetson.capture.address import Credentials
from jetson.config import settings as config
from jetson.config.settings import CameraSettings
from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.monitor.watchdog import say
from jetson.mqtt import settings as broker
from jetson.serve.cameras import Watched
from jetson.serve.settings import Settings

# Options of one camera and of one start, and where the file says the same.
_IN_THE_FILE = {
    "source": "cameras",
    "size": "size of a camera",
    "fps": "fps of a camera",
    "score": "score of a camera",
    "zones": "lines and zones of a camera",
    "governor": "engine.governor",
    "tradeoff": "compare.variants",
    "budget": "compare.budget",
    "eval": "compare.eval",
    "events": "events.file",
    "history": "events.history",
    "history_days": "events.days",
    "history_mb": "events.mb",
    "keep_crops": "events.crops",
    "drift": "drift.file",
    "drift_days": "drift.days",
    "stream_fps": "page.stream_fps",
    "mqtt": "mqtt",
    "mqtt_config": "mqtt",
    "mqtt_prefix": "mqtt.prefix",
}
_DEFAULTS: Dict[str, Any] = {
    "tradeoff": "auto",
    "budget": 5.0,
    "history_days": 30.0,
    "history_mb": 200.0,
    "drift_days": 7.0,
    "stream_fps": 15.0,
    "keep_crops": False,
    "mqtt_prefix": "jetmask",
}


def read(args: argparse.Namespace) -> config.Settings:
    """The file that a command line names. UsageError for options that say what the file says; BadInput for the file."""
    for name, where in _IN_THE_FILE.items():
        if getattr(args, name) not in (None, _DEFAULTS.get(name)):
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{option} beside --config", option, f"{where} in {args.config}", "each setting in one place"
            )
    return checked(config.read(args.config))


def checked(found: config.Settings) -> config.Settings:
    """What only the parts that use it can tell; BadInput names the key."""
    if found.engine.governor:
        try:
            governor.parse(found.engine.governor)
        except UsageError as error:
            raise BadInput(error.what, found.where("engine", "governor"), error.expected, error.remedy) from error
    return found


def settings_of(found: config.Settings, args: argparse.Namespace) -> Settings:
    """The settings of a file for `serve`; what the command line says of the page and the engine counts more."""
    page, engine, events = found.page, found.engine, found.events
    host = page.host if args.host == "127.0.0.1" else args.host
    port = page.port if args.port == 8080 else args.port
    return Settings(
        bundle=args.bundle,
        config=args.config,
        file=found,
        variant=args.variant or engine.variant,
        runtime=args.runtime or engine.runtime,
        threads=args.threads or engine.threads,
        once=args.once,
        every_frame=args.every_frame,
        wait_for_source=True,  # one camera that is away must not keep the others from being watched
        host=host,
        port=port,
        credentials=args.credentials or found.credentials,
        token_file=args.token_file or page.token_file,
        users=args.users or page.users,
        frame_ancestors=tuple(args.frame_ancestors) or page.frame_ancestors,
        insecure=args.insecure or page.insecure,
        allow_host=tuple(args.allow_host) + page.allow_hosts,
        stream_fps=page.stream_fps,
        blur_faces=args.blur_faces or page.blur_faces,
        tradeoff=found.compare.variants,
        budget=found.compare.budget,
        eval=found.compare.eval,
        governor=engine.governor,
        events=events.file,
        history=events.history,
        history_days=events.days,
        history_mb=events.mb,
        drift=found.drift.file,
        drift_days=found.drift.days,
        keep_crops=events.crops,
        ready_file=args.ready_file,
        alerts=found.alerts,
    )


def broker_of(found: config.Settings, settings: Settings) -> Optional[broker.Settings]:
    """What is published where; None without `mqtt:`."""
    if found.mqtt is None:
        return None
    credentials = Credentials(settings.credentials)
    return broker.of_section(found.mqtt, credentials.pair, found.where("mqtt"))


def cameras(found: config.Settings, settings: Settings, tell: bool = True) -> List[Watched]:
    """The cameras of a file with their addresses whole. BadInput for credentials that there are not."""
    credentials = Credentials(settings.credentials)
    for text in tuple(credentials.warnings) + tuple("warning: " + text for text in found.warnings) if tell else ():
        say(text)
    return [_watched(one, found, settings, credentials) for one in found.cameras]


def _watched(one: CameraSettings, found: config.Settings, settings: Settings, credentials: Credentials) -> Watched:
    try:
        parsed = source.parse(credentials.fill(one.source), one.size, one.fps, not settings.once, True)
    except JetmaskError as error:
        raise BadInput(error.what, found.where("cameras", one.name, "source"), error.expected, error.remedy) from error
    if settings.every_frame and parsed.live:
        raise UsageError("--every-frame is for files, folders and synthetic://", one.name)
    return Watched(one, parsed._replace(name=one.name, rotate=one.rotate, roi=one.roi))
