"""`serve --config FILE`: what the file says, with what the command line may say beside it."""

from typing import List, Optional

from jetson.adapt import governor
from jetson.capture import source
from jetson.capture.address import Credentials
from jetson.config import settings as config
from jetson.config.settings import CameraSettings
from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.monitor.watchdog import say
from jetson.mqtt import settings as broker
from jetson.serve.settings import Settings
from jetson.serve.watched import Watched

# Settings of `serve` that the file says, and where.
_IN_THE_FILE = {
    "sources": ("source", "cameras"),
    "size": ("size", "size of a camera"),
    "fps": ("fps", "fps of a camera"),
    "score": ("score", "score of a camera"),
    "zones": ("zones", "lines and zones of a camera"),
    "governor": ("governor", "engine.governor"),
    "tradeoff": ("tradeoff", "compare.variants"),
    "budget": ("budget", "compare.budget"),
    "eval": ("eval", "compare.eval"),
    "events": ("events", "events.file"),
    "history": ("history", "events.history"),
    "history_days": ("history-days", "events.days"),
    "history_mb": ("history-mb", "events.mb"),
    "keep_crops": ("keep-crops", "events.crops"),
    "drift": ("drift", "drift.file"),
    "drift_days": ("drift-days", "drift.days"),
    "stream_fps": ("stream-fps", "page.stream_fps"),
}


def read(path: str, asked: Settings) -> config.Settings:
    """The file of `--config`. UsageError for options that say what the file says; BadInput for the file."""
    for name, (option, where) in _IN_THE_FILE.items():
        if getattr(asked, name) != Settings._field_defaults[name]:
            raise beside(option, where, path)
    return checked(config.read(path))


def beside(option: str, where: str, path: str) -> UsageError:
    """An option that is not for `--config`; `where` the file says the same."""
    return UsageError(f"--{option} beside --config", f"--{option}", f"{where} in {path}", "each setting in one place")


def checked(found: config.Settings) -> config.Settings:
    """What only the parts that use it can tell; BadInput names the key."""
    if found.engine.governor:
        try:
            governor.parse(found.engine.governor)
        except UsageError as error:
            raise BadInput(error.what, found.where("engine", "governor"), error.expected, error.remedy) from error
    return found


def settings_of(found: config.Settings, asked: Settings) -> Settings:
    """The settings of a file for `serve`; what the command line says of the page and the engine counts more."""
    page, engine, events, usual = found.page, found.engine, found.events, Settings._field_defaults
    return asked._replace(
        file=found,
        variant=asked.variant or engine.variant,
        runtime=asked.runtime or engine.runtime,
        threads=asked.threads or engine.threads,
        wait_for_source=True,  # one camera that is away must not keep the others from being watched
        host=page.host if asked.host == usual["host"] else asked.host,
        port=page.port if asked.port == usual["port"] else asked.port,
        credentials=asked.credentials or found.credentials,
        token_file=asked.token_file or page.token_file,
        users=asked.users or page.users,
        frame_ancestors=tuple(asked.frame_ancestors) or page.frame_ancestors,
        insecure=asked.insecure or page.insecure,
        allow_host=tuple(asked.allow_host) + page.allow_hosts,
        stream_fps=page.stream_fps,
        blur_faces=asked.blur_faces or page.blur_faces,
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
        alerts=found.alerts,
        kept=events,
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
