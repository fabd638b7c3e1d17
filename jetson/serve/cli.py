"""The verb `serve`: its options, and the signals of its process; what it runs is in jetson.serve.live."""

import argparse
import os
import signal
import sys
import threading
from typing import Any, List

from jetson.adapt import governor, tradeoff
from jetson.capture import source
from jetson.capture.address import Credentials, has_password
from jetson.capture.check import check
from jetson.config.settings import CameraSettings
from jetson.errors import UsageError
from jetson.monitor import drift
from jetson.monitor.watchdog import say
from jetson.mqtt import settings as broker
from jetson.net import loopback
from jetson.serve import fromfile
from jetson.serve.live import Live
from jetson.serve.settings import Settings
from jetson.serve.watched import Watched
from jetson.tracking import zones
from jetson.web import users

DRAIN_S = 2.5  # SIGTERM is answered within 3 s


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python3 -m jetson serve`."""
    parser.add_argument("bundle", metavar="DIR", help="the bundle's folder")
    serve_options(parser)
    parser.epilog = "example: python3 -m jetson serve /var/lib/jetmask/bundle --source csi://0"


def serve_options(parser: argparse.ArgumentParser) -> None:
    """All arguments but the bundle (shared with `jetmask run`)."""
    add = parser.add_argument
    add(
        "--source",
        action="append",
        metavar="URI",
        help=source.EXAMPLES + "; may be given several times, NAME=ADDRESS gives it a name",
    )
    add(
        "--config",
        metavar="FILE",
        help="a YAML or JSON file that says everything: cameras by name, engine, events, alerts, MQTT, page; read "
        "again when it changes (docs/configuration.md)",
    )
    add(
        "--credentials",
        metavar="FILE",
        help="names and passwords of cameras, lines of `NAME USER:PASSWORD`; {NAME} in an address "
        "is replaced by them, as in rtsp://{NAME}@host/path (default: $JETMASK_CREDENTIALS; "
        "more in docs/access.md)",
    )
    add(
        "--variant",
        metavar="NAME",
        help="which of the bundle's variants; auto: the most accurate that reaches the cameras' rate on this "
        "device (default: the bundle's default)",
    )
    add("--runtime", metavar="R", help="tensorrt, onnxruntime or litert (default: the first that is installed)")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads of one inference (default: cores - 1)")
    add("--score", type=float, metavar="S", help="faces are shown from this score (default: the manifest's)")
    add("--size", metavar="WxH", help="frame size to ask a camera for (default: its own, or 640x480)")
    add("--fps", type=float, metavar="N", help="frame rate to ask for; for files, to play at")
    add(
        "--once",
        action="store_true",
        help="files and folders: process every frame once, then exit (default: newest frame only, in a loop)",
    )
    add("--every-frame", action="store_true", help="files and folders: each frame, as fast as possible")
    add("--wait-for-source", action="store_true", help="start although a device or file is not there yet")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)")
    add("--port", type=int, default=8080, help="port to listen on (default 8080; 0: any free one)")
    add("--token-file", metavar="FILE", help="file with the access token (default off loopback: a new one each start)")
    add("--users", metavar="FILE", help="further users, one a line: NAME ROLE TOKEN; roles operator, viewer, scraper")
    add(
        "--frame-ancestors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a site that may embed the page in a frame, such as https://homeassistant.lan:8123; repeatable",
    )
    add(
        "--insecure",
        action="store_true",
        help="listen beyond loopback without a token: anyone who reaches the port can see the page",
    )
    add("--allow-host", action="append", default=[], metavar="NAME", help="a further host name of this server")
    add("--stream-fps", type=float, default=15.0, metavar="N", help="pictures a second for viewers (default 15)")
    add("--blur-faces", action="store_true", help="make faces unrecognisable in every picture that is served")
    add(
        "--tradeoff",
        default="auto",
        metavar="NAMES",
        help="variants to compare while running, with commas; auto: all that run here; off",
    )
    add(
        "--budget",
        type=float,
        default=100 * tradeoff.BUDGET,
        metavar="PERCENT",
        help="share of the time that comparing may take (default %(default).0f)",
    )
    add("--eval", metavar="SPLIT_DIR", help="labelled images to measure true AP on, in the same share of the time")
    add(
        "--governor",
        metavar="GOALS",
        help="keep fps=25, watts=5 or celsius=70 by changing to the most accurate variant that does; "
        "several are separated by commas",
    )
    add("--events", metavar="FILE", help="append events to this file, one JSON object a line (default: kept in memory)")
    add(
        "--history",
        metavar="FILE",
        help="keep the events in this SQLite file, for /history (default: events.sqlite3 in $JETMASK_STATE, if that is "
        "set); off: not kept",
    )
    add("--history-days", type=float, default=30.0, metavar="DAYS", help="remove older events (default %(default).0f)")
    add("--history-mb", type=float, default=200.0, metavar="MB", help="its largest size (default %(default).0f)")
    add(
        "--zones",
        metavar="FILE",
        help="lines to count at and polygons to watch, one a line: `line 0 door 0.5,0 0.5,1` (kind, camera, name, "
        "points x,y as shares of the picture); read again on SIGHUP; more in jetson/tracking/zones.py",
    )
    add(
        "--drift",
        metavar="FILE",
        help="file of the drift reference: histograms of each camera's first week (default: drift.json in "
        "$JETMASK_STATE, else memory only); off: drift is not measured",
    )
    add(
        "--drift-days",
        type=float,
        default=drift.DEFAULT_DAYS,
        metavar="DAYS",
        help="days over which each camera's reference is recorded (default %(default).0f, at least 0.01)",
    )
    add(
        "--keep-crops",
        action="store_true",
        help="keep the best picture of each person in memory (default: none; with --blur-faces none either)",
    )
    broker.options(parser)
    add("--ready-file", metavar="FILE", help='write {"url", "pid"} there once it serves')


def settings_of(args: argparse.Namespace) -> Settings:
    """The options of a command line as one object; UsageError for what cannot be."""
    if not args.source and not args.config:
        raise UsageError("no camera is given", None, "--source URI, or --config FILE with cameras by name")
    for option in ("mqtt", "mqtt_config"):
        if args.config and getattr(args, option):
            raise fromfile.beside(option.replace("_", "-"), "mqtt", args.config)
    if args.threads < 0 or args.threads > 64:
        raise UsageError(f"not a number of threads: {args.threads}", "--threads", "1 to 64, or 0: cores - 1")
    if not 0 <= args.port <= 65535:
        raise UsageError(f"not a port: {args.port}", "--port", "0 to 65535")
    if not 0 < args.budget <= 50:
        raise UsageError(
            f"not a budget: {args.budget}", "--budget", "a percentage of the compute time: more than 0, at most 50"
        )
    if args.governor:
        governor.parse(args.governor)
        if args.tradeoff == "off":
            raise UsageError(
                "the governor needs the comparison of variants, which is off",
                "--governor",
                None,
                "leave out --tradeoff off",
            )
    if args.eval and args.tradeoff == "off":
        raise UsageError(
            "--eval needs the comparison of variants, which is off", "--eval", None, "leave out --tradeoff off"
        )
    if not 0 < args.history_days <= 3650:
        raise UsageError(
            f"not a number of days: {args.history_days}", "--history-days", "more than 0 and at most 3650 days"
        )
    if not 1 <= args.history_mb <= 100000:
        raise UsageError(f"not a size: {args.history_mb}", "--history-mb", "1 to 100000 MB")
    if not 0.01 <= args.drift_days <= 90:
        raise UsageError(f"not a number of days: {args.drift_days}", "--drift-days", "0.01 to 90")
    if args.score is not None and not 0 < args.score < 1:
        raise UsageError(f"not a score: {args.score}", "--score", "between 0 and 1")
    return Settings(
        bundle=args.bundle,
        sources=tuple(args.source or ()),
        variant=args.variant,
        runtime=args.runtime,
        threads=args.threads,
        score=args.score,
        size=source.parse_size(args.size) if args.size else None,
        fps=args.fps,
        once=args.once,
        every_frame=args.every_frame,
        wait_for_source=args.wait_for_source,
        host=args.host,
        port=args.port,
        credentials=args.credentials,
        token_file=args.token_file,
        users=args.users,
        frame_ancestors=tuple(args.frame_ancestors),
        insecure=args.insecure,
        allow_host=tuple(args.allow_host),
        stream_fps=args.stream_fps,
        blur_faces=args.blur_faces,
        tradeoff=args.tradeoff,
        budget=args.budget,
        eval=args.eval,
        governor=args.governor,
        events=args.events,
        zones=args.zones,
        history=args.history,
        history_days=args.history_days,
        history_mb=args.history_mb,
        drift=args.drift,
        drift_days=args.drift_days,
        keep_crops=args.keep_crops,
        ready_file=args.ready_file,
        config=args.config,
    )


def parse_sources(settings: Settings) -> List[Watched]:
    """The cameras of a command line, lists of them read, each checked."""
    addresses: List[str] = []
    for uri in settings.sources:
        addresses += source.read_list(uri) if source.is_list(uri) else [uri]
    if any(has_password(uri) for uri in settings.sources):
        say(
            "warning: the command line contains a camera's password, which every user of this machine can read; "
            "{NAME} in the address and --credentials avoid that (docs/access.md)"
        )
    credentials = Credentials(settings.credentials)
    for text in credentials.warnings:
        say(text)
    found: List[source.Source] = []
    for text in addresses:
        name, uri = source.named(text)
        if name and name in [other.name for other in found]:
            raise UsageError(f"two cameras have the name {name}", "--source", "each name once")
        one = source.parse(
            credentials.fill(uri), settings.size, settings.fps, not settings.once, settings.wait_for_source
        )
        found.append(one._replace(name=name))
    for one in found:
        if settings.every_frame and one.live:
            raise UsageError("--every-frame is for files, folders and synthetic://", one.label)
        if not settings.wait_for_source:
            check(one)
    places = zones.load(settings.zones, len(found)) if settings.zones else []
    return [
        Watched(
            CameraSettings(one.name, one.uri, zones=tuple(place for place in places if place.camera == number)),
            one,
        )
        for number, one in enumerate(found)
    ]


def read_users(settings: Settings) -> List[users.User]:
    """Whose tokens are demanded, [] where none is needed. BadInput when a file of them is no good."""
    found, warnings = users.gather(settings.token_file, settings.users)
    for text in warnings:
        say(text)
    if not found and not loopback(settings.host) and not settings.insecure:
        return [users.new_owner()]
    return found


def _end_in_time(code: int) -> None:
    """A driver that does not return must not keep the process: it ends DRAIN_S from now in any case."""
    killer = threading.Timer(DRAIN_S, os._exit, (code,))
    killer.daemon = True
    killer.start()


def command(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a wished end, 1 when the loop is stuck."""
    wanted = settings_of(args)
    config = fromfile.read(args.config, wanted) if args.config else None
    if config is not None:
        wanted = fromfile.settings_of(config, wanted)
    sys.setswitchinterval(0.0002)  # threads hand frames on; the default of 5 ms would be felt
    publishing = fromfile.broker_of(config, wanted) if config is not None else None
    if config is None:
        publishing = broker.read(args.mqtt, args.mqtt_config, args.mqtt_prefix)
    service = Live(wanted, publishing)
    interrupted: List[int] = []

    def end(number: int, _: Any) -> None:
        interrupted.append(number)
        _end_in_time(130 if number == signal.SIGINT else 0)
        # Last: should the signal have come while the main thread is inside wait(), which holds the same lock for an
        # instant, this never returns.
        service.stop.set()

    terminal = os.isatty(0)

    def hang_up(number: int, frame: Any) -> None:
        # The kernel's word that the terminal is gone: it must not go on, unseen, with the camera and the port.
        if terminal and not os.isatty(0):
            end(number, frame)
        else:
            service.reload.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, hang_up)
    # Opening may take long inside a driver, where no signal handler runs; so it has a thread of its own.
    trouble: List[BaseException] = []

    def start() -> None:
        try:
            cameras = parse_sources(wanted) if config is None else fromfile.cameras(config, wanted)
            service.open(cameras, read_users(wanted))
        except BaseException as error:
            trouble.append(error)

    starter = threading.Thread(target=start, name="start", daemon=True)
    starter.start()
    while starter.is_alive() and not service.stop.is_set():
        starter.join(0.1)
    code = 0
    try:
        if trouble:
            raise trouble[0]
        if not service.stop.is_set():
            code = service.run()
        if code:
            _end_in_time(code)
    finally:
        service.notifier.stopping()
        if not starter.is_alive():
            service.close()
    if signal.SIGINT in interrupted:
        code = 130
    if code or interrupted:
        # What is stuck, or just opening an engine for a reload, would keep an orderly end of Python from happening.
        sys.stderr.flush()
        os._exit(code)
    return code
