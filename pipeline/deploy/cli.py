"""`jetmask deploy`: bring a bundle to a Jetson over ssh, try it there, switch to it, and go back if it fails."""

import argparse
import dataclasses
import json
from typing import Any, NamedTuple

from jetson.engine import int8
from jetson.errors import UsageError
from jetson.install import leftovers, store
from pipeline.deploy import configuration, fleet_cli
from pipeline.deploy import options as deploy_options
from pipeline.deploy.deployment import Deployment, parcel, say_on_stderr
from pipeline.deploy.device_bench import parse
from pipeline.deploy.installed import Installed
from pipeline.deploy.settings import Settings
from pipeline.deploy.ssh import Remote

_EXAMPLES = """examples:
  jetmask deploy jetson/models user@nano --source csi://0
  jetmask deploy jetson/models user@nano --no-container --source /dev/video0
  jetmask deploy jetson/models user@nano --config jetmask.yaml
  jetmask deploy jetson/models user@nano --dry-run
  jetmask deploy --status user@nano          (also --list, --logs, --rollback, --prune-old 2)
  jetmask deploy facemask.tar --fleet fleet.yaml --canary 1        (also --fleet FILE with --status or --rollback)"""


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask deploy`."""
    add = parser.add_argument
    parser.epilog = _EXAMPLES
    add("words", nargs="*", metavar="[BUNDLE] USER@HOST", help="the bundle (folder or tar file), and the device")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--status",
        action="store_true",
        help="show what is installed and running on the device; exit code 1 if the runner is not healthy",
    )
    what.add_argument("--list", action="store_true", help="list the bundles installed on the device")
    what.add_argument("--rollback", action="store_true", help="roll back to the previous bundle")
    what.add_argument("--logs", action="store_true", help="show the runner's last log lines")
    what.add_argument(
        "--prune-old",
        type=int,
        metavar="N",
        help="delete all bundles but the active one, the previous one and the N newest, with what belongs to them; "
        "a healthy deployment does this with N = 0",
    )
    add("--lines", type=int, default=100, metavar="N", help="with --logs: how many (default: %(default)s)")
    add("--dry-run", action="store_true", help="print each command for the device instead of running it")
    add(
        "--source",
        action="append",
        metavar="URI",
        help="the runner's source on the device: csi://0, /dev/video0, rtsp://...; may be given several times",
    )
    add(
        "--config",
        metavar="FILE",
        help="the file that says everything: cameras by name, engine, events, alerts, page (docs/configuration.md); it "
        "is checked here and goes along",
    )
    add("--host", default=Settings.host, help="address that the live page listens on there (default: %(default)s)")
    add("--port", type=int, default=Settings.port, help="its port (default: %(default)s)")
    add("--serve-args", default="", metavar="'...'", help="further arguments for `serve`: --serve-args='--blur-faces'")
    add(
        "--variant",
        metavar="NAME",
        help="which of the bundle's variants to run (default: the bundle's; on a GPU its fp16 form)",
    )
    add("--no-container", action="store_true", help="systemd and a venv instead of a container")
    add(
        "--service",
        choices=("docker", "systemd", "systemd-user", "process"),
        help="how the runner is kept running (default: docker; with --no-container systemd; a process ends at reboot)",
    )
    add("--image-tar", metavar="FILE", help="a saved image (docker save) for a device without internet")
    add("--build-arg", action="append", default=[], metavar="K=V", help="for building the image on the device")
    add("--docker", default=Settings.docker, metavar="PROGRAM", help="docker there, or podman (default: %(default)s)")
    add("--no-gpu", action="store_true", help="run on the CPU even if the device has a GPU")
    add("--python", default=Settings.python, metavar="PROGRAM", help="Python there (default: %(default)s)")
    add("--use-python", action="store_true", help="with --no-container: use --python as it is, without a venv")
    add("--wheels", metavar="DIR", help="with --no-container: wheels for a device without internet")
    add("--root", default=Settings.root, help="where programs are put there (default: %(default)s)")
    add("--state", default=Settings.state, help="where bundles and engines are kept there (default: %(default)s)")
    add("--digest", metavar="HEX", help="the root digest that the bundle must have")
    add("--key", metavar="FILE", help="require a signature by this public key, on this machine and on the device")
    add(
        "--no-engines",
        action="store_true",
        help="build no TensorRT engine now; the runner does at its first start (minutes: raise --start)",
    )
    add("--int8-anyway", action="store_true", help=int8.HELP + "; name the variant with --variant")
    add("--no-bench", action="store_true", help="do not measure")
    add("--measured", metavar="OUT.json", help="write the device's measurements here")
    add(
        "--start",
        type=float,
        default=Settings.start,
        metavar="S",
        help="seconds the runner may take to be healthy (default %(default)s)",
    )
    add(
        "--watch",
        type=float,
        default=Settings.watch,
        metavar="S",
        help="seconds it must stay healthy (default %(default)s)",
    )
    add("--ssh", default="", metavar="'...'", help="options for ssh, for instance '-p 2222' or '-F FILE'")
    add(
        "--retries",
        type=int,
        default=Settings.retries,
        help="how often a broken connection is tried again (default %(default)s)",
    )
    add("--json", action="store_true", help="print the result as JSON")
    fleet_cli.options(parser)


class Ask(NamedTuple):
    """A question about what is deployed, or the way back; at most one of them."""

    status: bool = False
    list: bool = False
    rollback: bool = False
    logs: bool = False
    lines: int = 100
    prune_old: int | None = None
    json: bool = False

    @property
    def asks(self) -> bool:
        """Whether anything is asked, so that no bundle is deployed."""
        return self.status or self.list or self.rollback or self.logs or self.prune_old is not None


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of a deployment that a command line names."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)}
    values.update(source=tuple(args.source or ()), build_arg=tuple(args.build_arg))
    return Settings(**values)


def _fleet_settings(args: argparse.Namespace) -> fleet_cli.FleetSettings:
    for name in ("list", "logs", "prune_old"):
        if getattr(args, name) not in (False, None):
            raise UsageError(
                f"--{name.replace('_', '-')} works on one device",
                "--fleet",
                "--status or --rollback",
                f"jetmask deploy --{name.replace('_', '-')} USER@HOST",
            )
    return fleet_cli.FleetSettings(
        args.fleet,
        tuple(args.words),
        args.status,
        args.rollback,
        args.dry_run,
        args.json,
        args.canary,
        args.canary_watch,
        args.at_once,
        args.keep,
        args.skip_unreachable,
        args.html,
        args.every,
        settings_of(args),
    )


def command(args: argparse.Namespace) -> int:
    """Deploy, or ask and steer what is deployed."""
    if args.fleet:
        return fleet_cli.run(_fleet_settings(args), options)
    if args.keep or args.skip_unreachable:
        raise UsageError("--keep and --skip-unreachable go with --fleet only")
    settings = settings_of(args)
    ask = Ask(args.status, args.list, args.rollback, args.logs, args.lines, args.prune_old, args.json)
    if len(args.words) != (1 if ask.asks else 2):
        raise UsageError(
            "expected " + ("USER@HOST alone" if ask.asks else "BUNDLE USER@HOST"),
            " ".join(args.words) or None,
            None,
            "for instance `jetmask deploy "
            + ("--status user@nano" if ask.asks else "jetson/models user@nano --source csi://0")
            + "`; `jetmask deploy --help` says the rest",
        )
    deploy_options.check(settings, sends=not ask.asks and not args.dry_run)
    with Remote(args.words[-1], deploy_options.words(args.ssh, "ssh"), args.retries, args.dry_run) as remote:
        if ask.asks:
            return _ask(remote, settings, ask)
        with parcel(args.words[0]) as contents:
            result = Deployment(remote, settings, contents).run()
    if not args.dry_run:
        print(json.dumps(result, indent=1) if args.json else _summary(settings, result))
    return 0


def _ask(remote: Remote, settings: Settings, ask: Ask) -> int:
    words = ["--state", settings.state, "--json"]
    if ask.status or ask.list:
        words = ["--status", *words]
    else:
        words = ["--logs", str(ask.lines), "--state", settings.state]
    installed = Installed(remote, settings)
    installed.require()
    if ask.rollback:
        return _rollback(installed, ask.json)
    if ask.prune_old is not None:
        return _prune(installed, ask.prune_old, ask.json)
    if ask.logs:
        remote.run(installed.line(words), follow=print)
        return 0
    text = remote.run(installed.line(words))
    if remote.dry_run:
        return 0
    answer = parse(text, "the device's answer")
    if ask.status:
        return _status(installed, answer, ask.json)
    if ask.json:
        print(json.dumps(answer, indent=1))
    else:
        print(store.show(answer))
    return 0


def _prune(installed: Installed, keep: int, as_json: bool) -> int:
    found = installed.prune(keep)
    if not found:
        return 0
    print(json.dumps(found, indent=1) if as_json else leftovers.show(found))
    return 1 if found["problems"] else 0


def _status(installed: Installed, answer: dict[str, Any], as_json: bool) -> int:
    """Print it all; the exit code, for scripts: 0 where the runner is healthy, 1 where it is not or none is set up."""
    if not as_json:
        print(store.show(answer), flush=True)
    said = installed.health(answer["service"]) if answer["service"] is not None else ""
    answer["healthy"] = bool(said)
    if as_json:
        print(json.dumps(answer, indent=1))
    else:
        print("health: " + (said or ("no good answer (--logs)" if answer["service"] else "no runner is set up")))
    return 0 if said else 1


def _rollback(installed: Installed, as_json: bool) -> int:
    """The way of every switch, by the digest: "go back", heard twice over a link that breaks, would undo itself."""
    remote, state = installed.remote, installed.settings.state
    service = f"{state}/service.previous.json"
    if remote.dry_run:
        remote.run(installed.line(["--status", "--state", state, "--json"]))
        installed.switch("PREVIOUS", service, say_on_stderr)
        return 0
    found = installed.status()
    digest = found["previous"]
    if digest is None or digest not in {bundle["digest"] for bundle in found["bundles"]}:
        raise UsageError(
            "no previous bundle to roll back to",
            remote.target,
            None,
            f"jetmask deploy --list {remote.target}; jetmask deploy BUNDLE {remote.target}",
        )
    kept = remote.code(["test", "-e", service]) == 0
    installed.switch(digest, service if kept else None, say_on_stderr)
    print(json.dumps({"current": digest}, indent=1) if as_json else f"{remote.target} was rolled back to {digest[:16]}")
    return 0


def _summary(settings: Settings, result: dict[str, Any]) -> str:
    lines = [f"{result['target']} runs bundle {result['digest'][:16]}"]
    lines += [f"  {title:<28} {seconds:6.1f} s" for title, seconds in result["times_s"].items()]
    lines.append(f"live page there: {result['url']}")
    settings, _ = configuration.merged(settings)
    if not settings.host.startswith("127.") and settings.host != "localhost":
        lines.append(f"its token and a one-time login link: jetmask deploy --logs {result['target']}")
    else:
        lines.append(
            f"from here: ssh -L {settings.port}:127.0.0.1:{settings.port} {result['target']}, then open "
            f"http://127.0.0.1:{settings.port}/"
        )
    return "\n".join(lines)
