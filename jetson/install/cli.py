"""The verbs `verify` and `install`: their options; what they do is in jetson.install.installer."""

import argparse
import json
import logging
import os
import signal
import time
from typing import Any, Dict

from jetson import doctor, files
from jetson.bundle import manifest, signing
from jetson.engine import int8
from jetson.errors import JetmaskError, UsageError
from jetson.install import installer, leftovers, service, store
from jetson.install.installer import TRUSTED_KEYS, activate, check, opened, recover_at_start, rollback, trusted_keys
from jetson.install.store import Store

log = logging.getLogger(__name__)


def _detach() -> bool:
    """Go on in a process of its own that survives the connection; True in it, False in the one that was called."""
    if os.fork():
        return False
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(null, handle)
    return True


def verify_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python3 -m jetson verify`."""
    parser.add_argument("bundle", metavar="BUNDLE", help="the bundle's folder, or its tar file")
    parser.add_argument("--digest", metavar="HEX", help="the root digest that it must have")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FILE",
        help="demand a signature by a public key in FILE (PEM or hex)",
    )
    parser.add_argument("--self-test", action="store_true", help="also run the golden inputs on this machine")
    parser.add_argument("--variant", metavar="NAME", help="variant of the self-test (default: the bundle's)")
    parser.add_argument(
        "--runtime",
        metavar="NAME",
        help="runtime of the self-test (default: the variant's first one that is installed)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.epilog = "example: python3 -m jetson verify jetson/models --self-test"


def verify_command(args: argparse.Namespace) -> int:
    """Check a bundle; 0 only if all is right."""
    try:
        with opened(args.bundle) as folder:
            digest = check(folder, args.digest, [k for path in args.key for k in signing.read_keys(path)] or None)
            contents = manifest.load(folder)
            count = len(manifest.listing(folder))
            test = None
            if args.self_test:
                from jetson.inference import golden  # needs numpy and OpenCV; the rest of this module does not

                test = golden.require(folder, args.variant, args.runtime)
    except JetmaskError as error:
        if not args.json:
            raise
        print(json.dumps({"bundle": args.bundle, "ok": False, "problems": str(error).splitlines()}))
        return error.exit_code
    if args.json:
        print(json.dumps({"bundle": args.bundle, "ok": True, "problems": [], "digest": digest, "self_test": test}))
        return 0
    print(f"{contents.name}: {len(contents.variants)} variants, {count} files, all as listed\nroot digest {digest}")
    if test:
        print("self-test of {variant} on {runtime}: {faces} faces in {images} images as expected".format(**test))
    return 0


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python3 -m jetson install`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("bundle", nargs="?", metavar="BUNDLE", help="the bundle to install, a folder or a tar file")
    what.add_argument("--activate", metavar="DIGEST", help="activate an installed bundle")
    what.add_argument("--rollback", action="store_true", help="roll back to the previous bundle")
    what.add_argument("--recover", action="store_true", help="undo an activation that was interrupted")
    what.add_argument("--status", action="store_true", help="what is installed, and what runs")
    what.add_argument("--list", action="store_true", help="the installed bundles")
    what.add_argument("--logs", type=int, nargs="?", const=100, metavar="LINES", help="the runner's last log lines")
    what.add_argument(
        "--prune-old",
        type=int,
        metavar="N",
        help="delete all bundles but the active one, the previous one and the N newest",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="with --prune-old: also remove the packages and venvs in DIR and "
        "the images that neither the current nor the previous release uses",
    )
    parser.add_argument("--docker", default="docker", metavar="PROGRAM", help="docker, or podman (default: docker)")
    parser.add_argument(
        "--state", metavar="DIR", help=f"where bundles are kept (default: JETMASK_STATE, {doctor.STATE})"
    )
    parser.add_argument("--digest", metavar="HEX", help="the root digest that the bundle must have")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FILE",
        help=f"demand a signature by a public key in FILE (default: {TRUSTED_KEYS}, if there)",
    )
    parser.add_argument("--stage", action="store_true", help="install only; do not activate it")
    parser.add_argument(
        "--service",
        metavar="FILE.json",
        help="service definition (JSON, as `jetmask deploy` writes it) by which the runner is started from now on",
    )
    parser.add_argument(
        "--start",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds it may take until healthy, not counting the building of engines",
    )
    parser.add_argument("--watch", type=float, default=20.0, metavar="S", help="seconds it must stay healthy")
    parser.add_argument("--int8-anyway", action="store_true", help=int8.HELP)
    parser.add_argument("--token", default="", help=argparse.SUPPRESS)
    parser.add_argument("--detach", action="store_true", help="activate in a process of its own and return at once")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.epilog = "example: python3 -m jetson install facemask.tar --digest 3f2a..."


def command(args: argparse.Namespace) -> int:
    """Install, switch, go back, or say what is there."""
    where = Store(doctor.state_folder(args.state))
    say = _say
    spec = files.read_json(args.service) if args.service else None
    if args.int8_anyway:
        spec = spec or where.service()
        if spec is None:
            raise UsageError("no runner is set up", where.folder, "--service FILE.json with --int8-anyway")
        spec = service.with_environment(spec, int8.ENVIRONMENT, "1")
        int8.ask_anyway()
    if args.status or args.list:
        return _print(args.json, where.status(), store.show(where.status()))
    if args.logs is not None:
        spec = where.service()
        if spec is None:
            raise UsageError("no runner is set up", where.folder)
        words = service.logs(spec, where.folder, args.logs)
        os.execvp(words[0], words)
    if args.prune_old is not None:
        with where.lock():
            removed = leftovers.remove(where, max(0, args.prune_old), args.root, args.docker)
        return _print(args.json, removed, leftovers.show(removed))
    if args.recover:
        done = recover_at_start(where, say)
        return _print(
            args.json, {"recovered": done}, "an interrupted activation was undone" if done else "nothing to undo"
        )
    if args.rollback:
        digest = rollback(where, args.start, args.watch, say)
        return _print(args.json, {"current": digest}, f"back on {digest[:16]}")
    if args.activate:
        digest = os.path.basename(where.bundle(args.activate))
        if args.detach:
            if not _detach():
                return 0
            try:
                activate(where, digest, spec, args.start, args.watch, token=args.token)
            except Exception as error:
                if (where.result() or {}).get("token") != args.token:
                    where.write_result(
                        {
                            "digest": digest,
                            "ok": False,
                            "message": str(error),
                            "finished": time.time(),
                            "token": args.token,
                        }
                    )
            os._exit(0)
        activate(where, digest, spec, args.start, args.watch, say, args.token)
        return _print(args.json, {"current": digest}, f"active bundle: {digest[:16]}")
    digest = installer.install(where, args.bundle, args.digest, trusted_keys(args.key))
    say(f"installed {digest}")
    if not args.stage:
        activate(where, digest, spec, args.start, args.watch, say)
    return _print(args.json, {"digest": digest, "current": where.link("current")}, f"root digest {digest}")


def _say(text: str) -> None:
    log.info(text)


def _print(as_json: bool, value: Dict[str, Any], text: str) -> int:
    print(json.dumps(value, indent=1) if as_json else text)
    return 0
