"""Bring a bundle onto this device: unpack it safely, check it, switch to it on trial, and go back if it fails."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from jetson import doctor, files
from jetson.bundle import manifest, signing, tarball
from jetson.engine import int8
from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.install import leftovers, service, store
from jetson.install.store import Store

TRUSTED_KEYS = "/etc/jetmask/trusted_keys"
Say = Callable[[str], None]


def root_digest(bundle_dir: str) -> str:
    """The SHA-256 of a bundle's SHA256SUMS, in hex."""
    return files.sha256(os.path.join(bundle_dir, manifest.SUMS))


def check(bundle_dir: str, digest: Optional[str] = None, keys: Optional[List[bytes]] = None) -> str:
    """Check a bundle folder wholly and return its root digest; BadInput for anything wrong.

    Every file against SHA256SUMS, the sizes that manifest.json announces, the root digest against `digest` when given,
    the signature against `keys` when not None.
    """
    if not all(os.path.isfile(os.path.join(bundle_dir, name)) for name in (tarball.MANIFEST, manifest.SUMS)):
        manifest.load(bundle_dir)
        raise BadInput(f"the bundle has no {manifest.SUMS}", bundle_dir, None, manifest.AGAIN)
    found = root_digest(bundle_dir)
    if digest is not None and found != digest:
        raise BadInput(
            f"this is another bundle: its root digest is {found}",
            bundle_dir,
            digest,
            "copy the bundle again, or give the digest that its maker printed",
        )
    if keys is not None:
        signing.check_bundle(bundle_dir, keys)
    tarball.check_sizes(bundle_dir)
    manifest.verify(bundle_dir)
    return found


def trusted_keys(paths: List[str]) -> Optional[List[bytes]]:
    """The keys to demand a signature by: those in the files `paths`, else the device's own; None where it has none."""
    if not paths:
        try:
            os.lstat(TRUSTED_KEYS)  # one that may not be looked at is an error, not the absence of a demand
            paths = [TRUSTED_KEYS]
        except (FileNotFoundError, NotADirectoryError):
            pass
    return [key for path in paths for key in signing.read_keys(path)] if paths else None


@contextlib.contextmanager
def opened(source: str) -> Iterator[str]:
    """A bundle's folder: `source` itself, or where the tar file `source` is unpacked meanwhile."""
    if os.path.isdir(source):
        yield source
        return
    if not os.path.isfile(source):
        raise BadInput("there is no such bundle", source, "a bundle's folder, or its tar file")
    scratch = tempfile.mkdtemp(prefix="jetmask-")
    try:
        folder = os.path.join(scratch, "bundle")
        tarball.extract(source, folder)
        yield folder
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def install(where: Store, source: str, digest: Optional[str] = None, keys: Optional[List[bytes]] = None) -> str:
    """Put the bundle `source` (a folder or a tar file) under bundles/<root digest>; returns the digest.

    It gets its name only when it is whole, checked and on the disk. `current` is not touched.
    """
    with where.lock():
        return _install(where, source, digest, keys)


def _install(where: Store, source: str, digest: Optional[str], keys: Optional[List[bytes]]) -> str:
    part = os.path.join(where.bundles, f".{os.getpid()}.partial")
    try:
        _room(where, source)
        if os.path.isdir(source):
            _copy_folder(source, part)
        elif os.path.isfile(source):
            tarball.extract(source, part)
        else:
            raise BadInput("there is no such bundle", source, "a bundle's folder, or its tar file")
        found = check(part, digest, keys)
        for folder, _, _ in os.walk(part):
            store.fsync_folder(folder)
        target = os.path.join(where.bundles, found)
        if os.path.isdir(target):
            try:
                check(target, found, keys)
                return found
            except BadInput:  # damaged on the disk since; the whole one takes its place
                os.rename(target, target + ".damaged")
        os.rename(part, target)
        store.fsync_folder(where.bundles)
        shutil.rmtree(target + ".damaged", ignore_errors=True)
        return found
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _room(where: Store, source: str) -> None:
    if os.path.isdir(source):
        needed = sum(os.path.getsize(os.path.join(source, name)) for name in manifest.listing(source))
    elif os.path.isfile(source):
        needed = os.path.getsize(source)
    else:
        return
    free = shutil.disk_usage(where.folder).free
    if free < needed + (16 << 20):
        raise JetmaskError(
            f"not enough room for the bundle: {free >> 20} MiB free",
            where.folder,
            f"{(needed >> 20) + 16} MiB",
            "python3 -m jetson install --prune-old 2",
        )


def _copy_folder(source: str, target: str) -> None:
    tarball.check_sizes(source)
    os.mkdir(target, 0o755)
    for name in manifest.listing(source):
        path = os.path.join(target, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(os.path.join(source, name), "rb") as read, open(path, "wb") as write:
            shutil.copyfileobj(read, write, 1 << 20)
            write.flush()
            os.fsync(write.fileno())


def activate(
    where: Store,
    digest: str,
    spec: Optional[Dict[str, Any]] = None,
    start_s: float = 120.0,
    watch_s: float = 20.0,
    say: Say = lambda text: None,
    token: str = "",
) -> None:
    """Switch `current` to an installed bundle, restart the runner, watch its health; undo all of it if it fails.

    `spec`: how the runner is started from now on (see service.py); None keeps what is set up. Without any service only
    the link is switched. `token` is kept in result.json, so that whoever began a switch from afar knows its own.
    JetmaskError where the new bundle did not come up; then the old one runs again.
    """
    with where.lock():
        if token and (where.result() or {}).get("token") == token:
            return  # the same request again, after a link that broke between its arrival and the answer
        recover(where, say)
        digest = os.path.basename(where.bundle(digest))
        old = where.service()
        spec = old if spec is None else spec
        where.begin(digest, spec, token)
        say(f"current is {digest[:16]} on trial")
        problem = _restart(where, old, spec, start_s, watch_s, say) if spec is not None else None
        if problem is None:
            where.confirm()
            where.write_result(
                {
                    "digest": digest,
                    "ok": True,
                    "message": f"switched to {digest[:16]}",
                    "finished": time.time(),
                    "token": token,
                }
            )
            return
        # What the runner said is gone with it: a container's log is removed with the container.
        last = [] if spec is None else service.said(spec, where.folder)
        say(f"failed: {problem}; going back")
        worse = _undo(where, spec, start_s, say)
        was = where.link("current")
        message = f"{problem}; {'back on ' + was[:16] if was else 'nothing was installed before'}"
        if worse is not None:
            message += ", but its runner does not come up either: " + worse
        where.write_result(
            {"digest": digest, "ok": False, "message": message, "said": last, "finished": time.time(), "token": token}
        )
        raise JetmaskError(
            "the new bundle did not come up: {}{}".format(message, "".join("\n    | " + line for line in last)),
            where.bundle(digest),
            "a healthy runner",
            "its last log lines above say why; the old runner's are in `jetmask deploy --logs USER@HOST`",
        )


def _restart(
    where: Store, old: Optional[Dict[str, Any]], spec: Dict[str, Any], start_s: float, watch_s: float, say: Say
) -> Optional[str]:
    try:
        if old is not None:
            service.stop(old, where.folder)
        service.stop(spec, where.folder)
        service.start(spec, where.folder)
        say(f"runner started ({spec['kind']})")
        return service.watch(spec, where.folder, start_s, watch_s, say, where.note_starting)
    except (JetmaskError, OSError) as error:  # whatever it is, the old runner has been stopped and must come back
        return str(error.what if isinstance(error, JetmaskError) else error)


def _undo(where: Store, failed: Optional[Dict[str, Any]], start_s: float, say: Say) -> Optional[str]:
    """Everything as it was before the switch, the old runner included; why that does not come up, or None."""
    if failed is not None:
        service.stop(failed, where.folder)
    where.undo()
    old = where.service()
    if old is None or where.link("current") is None:
        return None
    try:
        service.stop(old, where.folder)
        service.start(old, where.folder)
        problem = service.watch(old, where.folder, start_s, 0)
    except (JetmaskError, OSError) as error:
        problem = str(error.what if isinstance(error, JetmaskError) else error)
    say("the old runner is back" if problem is None else "the old runner does not come up: " + problem)
    return problem


def recover(where: Store, say: Say = lambda text: None, restart: bool = True) -> bool:
    """Undo a switch that was cut off (power, kill); whether there was one. Call under the lock.

    Without `restart` the old bundle is back, but whoever called starts it in the new way: the result says so.
    """
    trial = where.read("trial.json")
    if trial is None:
        return False
    say("a switch was cut off; going back")
    spec = where.service()
    if restart:
        _undo(where, spec, 120.0, say)
    else:
        where.undo()
    where.write_result(
        {
            "digest": trial["digest"],
            "ok": False,
            "message": "a switch was cut off and undone",
            "finished": time.time(),
            "token": trial.get("token", ""),
            "restarted": restart,
        }
    )
    return True


def recover_at_start(where: Store, say: Say) -> bool:
    """Before the runner starts: undo a switch that was cut off, unless one is at work right now (it started us)."""
    if where.read("trial.json") is None:
        return False
    try:
        with where.lock(wait=False):
            return recover(where, say, restart=False)
    except JetmaskError as error:
        say(f"a switch is under way, which looks after itself ({error.what})")
        return False


def rollback(where: Store, start_s: float = 120.0, watch_s: float = 20.0, say: Say = lambda text: None) -> str:
    """Go back to the previous bundle, with its service; returns its digest. UsageError where there is none."""
    previous = where.link("previous")
    if previous is None or previous not in where.digests():
        raise UsageError(
            "there is no previous bundle to go back to",
            where.folder,
            None,
            "`python3 -m jetson install --list` shows what is there; --activate DIGEST switches to it",
        )
    activate(where, previous, where.previous_service(), start_s, watch_s, say)
    return previous


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
    parser.add_argument("--variant", metavar="NAME", help="for the self-test (default: the bundle's)")
    parser.add_argument("--runtime", metavar="NAME", help="for the self-test (default: the first that is here)")
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
    what.add_argument("--activate", metavar="DIGEST", help="switch to an installed bundle")
    what.add_argument("--rollback", action="store_true", help="go back to the previous bundle")
    what.add_argument("--recover", action="store_true", help="undo a switch that was cut off")
    what.add_argument("--status", action="store_true", help="what is installed, and what runs")
    what.add_argument("--list", action="store_true", help="the installed bundles")
    what.add_argument("--logs", type=int, nargs="?", const=100, metavar="LINES", help="the runner's last log lines")
    what.add_argument("--prune-old", type=int, metavar="N", help="keep the newest N bundles, current and previous")
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
    parser.add_argument("--stage", action="store_true", help="install only; do not switch to it")
    parser.add_argument("--service", metavar="FILE.json", help="how the runner is started from now on")
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
    parser.add_argument("--detach", action="store_true", help="switch in a process of its own and return at once")
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
        return _print(args.json, {"recovered": done}, "a switch was undone" if done else "nothing to undo")
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
        return _print(args.json, {"current": digest}, f"current is {digest[:16]}")
    digest = install(where, args.bundle, args.digest, trusted_keys(args.key))
    say(f"installed {digest}")
    if not args.stage:
        activate(where, digest, spec, args.start, args.watch, say)
    return _print(args.json, {"digest": digest, "current": where.link("current")}, f"root digest {digest}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
    sys.stderr.flush()


def _print(as_json: bool, value: Dict[str, Any], text: str) -> int:
    print(json.dumps(value, indent=1) if as_json else text)
    return 0
