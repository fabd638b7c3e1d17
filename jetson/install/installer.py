"""Bring a bundle onto this device: unpack it safely, check it, switch to it on trial, and go back if it fails."""

import contextlib
import os
import shutil
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from jetson import files
from jetson.bundle import manifest, paths, signing, tarball
from jetson.engine import onnx_facts
from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.install import service, store
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
    for name in sorted({variant.file for variant in manifest.load(bundle_dir).variants}):
        if name.endswith(".onnx"):  # one that would make this device read other files is not even installed
            onnx_facts.read(paths.inside(bundle_dir, name))
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
        raise BadInput("the bundle does not exist", source, "a bundle's folder, or its tar file")
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
            raise BadInput("the bundle does not exist", source, "a bundle's folder, or its tar file")
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
                    "message": f"activated {digest[:16]}",
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
        message = f"{problem}; {'rolled back to bundle ' + was[:16] if was else 'nothing was installed before'}"
        if worse is not None:
            message += ", but its runner does not start either: " + worse
        where.write_result(
            {"digest": digest, "ok": False, "message": message, "said": last, "finished": time.time(), "token": token}
        )
        raise JetmaskError(
            "the new bundle did not start: {}{}".format(message, "".join("\n    | " + line for line in last)),
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
    say("the old runner is back" if problem is None else "the old runner does not start: " + problem)
    return problem


def recover(where: Store, say: Say = lambda text: None, restart: bool = True) -> bool:
    """Undo a switch that was cut off (power, kill); whether there was one. Call under the lock.

    Without `restart` the old bundle is back, but whoever called starts it in the new way: the result says so.
    """
    trial = where.read("trial.json")
    if trial is None:
        return False
    say("an activation was interrupted; rolling back")
    spec = where.service()
    if restart:
        _undo(where, spec, 120.0, say)
    else:
        where.undo()
    where.write_result(
        {
            "digest": trial["digest"],
            "ok": False,
            "message": "an interrupted activation was undone",
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
        say(f"the activation of a bundle is in progress and recovers by itself ({error.what})")
        return False


def rollback(where: Store, start_s: float = 120.0, watch_s: float = 20.0, say: Say = lambda text: None) -> str:
    """Go back to the previous bundle, with its service; returns its digest. UsageError where there is none."""
    previous = where.link("previous")
    if previous is None or previous not in where.digests():
        raise UsageError(
            "no previous bundle to roll back to",
            where.folder,
            None,
            "`python3 -m jetson install --list` lists the installed bundles; --activate DIGEST activates one",
        )
    activate(where, previous, where.previous_service(), start_s, watch_s, say)
    return previous
