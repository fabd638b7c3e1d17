"""Where a device keeps its bundles, and which one is current.

    bundles/<digest>/     whole, verified bundles under their root digest; never changed once they have that name
    current, previous     links to bundles/<digest>
    service.json          how the runner of `current` is started;  service.previous.json  that of `previous`
    trial.json            there while a switch is not yet confirmed; whoever finds it and no switch at work undoes it
    engines/  measured/  incoming/  lock

Everything is changed under `lock`, by one rename or one link at a time, so that a kill at any moment leaves `current`
on a whole bundle, and with trial.json the way back.
"""

import contextlib
import json
import os
import re
import shutil
import time
from typing import Any, Dict, Iterable, Iterator, List, Optional

from jetson import files
from jetson.bundle import manifest
from jetson.errors import BadInput, JetmaskError, UsageError

DIGEST = re.compile(r"^[0-9a-f]{64}$")
_TRIAL, _SERVICE, _PREVIOUS_SERVICE, _RESULT = "trial.json", "service.json", "service.previous.json", "result.json"


class Store:
    """One state folder; made when it is first written to."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)
        self.bundles = os.path.join(self.folder, "bundles")

    def path(self, *names: str) -> str:
        """A path inside the state folder."""
        return os.path.join(self.folder, *names)

    def bundle(self, digest: str) -> str:
        """The folder of an installed bundle; `digest` may be shortened to 8 digits or more. UsageError if not there."""
        matches = [name for name in self.digests() if name.startswith(digest)] if len(digest) >= 8 else []
        if len(matches) != 1:
            raise UsageError(
                f"no bundle {digest} is installed",
                self.bundles,
                "one of " + ", ".join(name[:16] for name in self.digests()) if self.digests() else None,
                "`python3 -m jetson install --list` shows what is there",
            )
        return os.path.join(self.bundles, matches[0])

    def digests(self) -> List[str]:
        """The installed bundles, oldest first."""
        try:
            names = [name for name in os.listdir(self.bundles) if DIGEST.match(name)]
        except OSError:
            return []
        return sorted(names, key=lambda name: (os.stat(os.path.join(self.bundles, name)).st_mtime, name))

    def link(self, name: str) -> Optional[str]:
        """The digest that `current` or `previous` points to, or None."""
        try:
            return os.path.basename(os.readlink(self.path(name)))
        except OSError:
            return None

    def point(self, name: str, digest: Optional[str]) -> None:
        """Make the link `name` point to a bundle in one step, or take it away."""
        path = self.path(name)
        if digest is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        else:
            aside = self.path(f".{name}.link")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            os.symlink(os.path.join("bundles", digest), aside)
            os.replace(aside, path)
        fsync_folder(self.folder)

    @contextlib.contextmanager
    def lock(self, wait: bool = True) -> Iterator[None]:
        """Hold the state folder alone, after sweeping what killed holders left. JetmaskError if it is not writable."""
        try:
            for folder in (self.folder, self.bundles):
                os.makedirs(folder, 0o755, exist_ok=True)
            held = files.lock(self.path("lock"), wait)
            held.__enter__()
        except PermissionError as error:
            raise JetmaskError(
                "cannot write the state folder",
                error.filename,
                "a folder of this user",
                f"sudo mkdir -p {self.folder} && sudo chown $USER {self.folder}, or give --state DIR",
            ) from error
        try:
            self._sweep()
            yield
        finally:
            held.__exit__(None, None, None)

    def _sweep(self) -> None:
        for folder in (self.folder, self.path("measured")):
            if os.path.isdir(folder):
                files.sweep_aside(folder)
        # Under the lock no other installer lives, so every unfinished folder is a dead one's.
        for name in os.listdir(self.bundles):
            if not DIGEST.match(name):
                shutil.rmtree(os.path.join(self.bundles, name), ignore_errors=True)

    def read(self, name: str) -> Optional[Any]:
        """A JSON file of the state folder, or None where it is not there."""
        try:
            return files.read_json(self.path(name))
        except BadInput:
            if os.path.exists(self.path(name)):
                raise
            return None

    def remove(self, name: str) -> None:
        """Remove a file of the state folder; nothing happens where it is not there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))
        fsync_folder(self.folder)

    # A switch of `current`: begin, then confirm or undo. Call under the lock.

    def begin(self, digest: str, service: Optional[Dict[str, Any]], token: str = "") -> None:
        """Point `current` to another bundle, on trial: undo() brings everything back until confirm() is called.

        `token`: by which whoever began the switch knows its result, also when it was cut off.
        """
        self.undo()
        files.write_json(
            self.path(_TRIAL),
            {
                "digest": digest,
                "was": self.link("current"),
                "service_was": self.read(_SERVICE),
                "began": time.time(),
                "token": token,
            },
        )
        if service is not None:
            files.write_json(self.path(_SERVICE), service)
        self.point("current", digest)

    def note_starting(self) -> None:
        """Keep with the trial that its runner still builds its engine, a few times a minute: who waits from afar
        counts from the last such note."""
        trial = self.read(_TRIAL)
        if trial is not None and time.time() - trial.get("starting", 0) >= 5:
            files.write_json(self.path(_TRIAL), dict(trial, starting=time.time()))

    def confirm(self) -> None:
        """The bundle on trial stays; the one before it is now `previous`."""
        trial = self.read(_TRIAL)
        if trial is None:
            return
        if trial["was"] is not None and trial["was"] != trial["digest"]:
            self.point("previous", trial["was"])
            if trial["service_was"] is not None:
                files.write_json(self.path(_PREVIOUS_SERVICE), trial["service_was"])
        self.remove(_TRIAL)

    def undo(self) -> bool:
        """Put back what an unconfirmed switch changed; whether there was one."""
        trial = self.read(_TRIAL)
        if trial is None:
            return False
        self.point("current", trial["was"] if trial["was"] in self.digests() else None)
        if trial["service_was"] is not None:
            files.write_json(self.path(_SERVICE), trial["service_was"])
        else:
            self.remove(_SERVICE)
        self.remove(_TRIAL)
        return True

    def service(self) -> Optional[Dict[str, Any]]:
        """How the runner is started, or None where nothing of that kind is set up."""
        return self.read(_SERVICE)

    def previous_service(self) -> Optional[Dict[str, Any]]:
        """How the runner of `previous` was started."""
        return self.read(_PREVIOUS_SERVICE)

    def write_result(self, result: Dict[str, Any]) -> None:
        """Keep how the last switch ended, for who asks later."""
        files.write_json(self.path(_RESULT), result)

    def result(self) -> Optional[Dict[str, Any]]:
        """How the last switch ended, or None."""
        return self.read(_RESULT)

    def prune(self, keep: int, held: Iterable[str] = ()) -> List[str]:
        """Remove all but the newest `keep` bundles; `current` and `previous` stay in any case. The digests removed.

        So do the bundle that a switch on trial would go back to, and those in `held`.
        """
        kept = {self.link("current"), self.link("previous"), (self.read(_TRIAL) or {}).get("was"), *held}
        digests = self.digests()
        removed = [digest for digest in digests[: max(0, len(digests) - keep)] if digest not in kept]
        for digest in removed:
            # Renamed first: a kill in the middle leaves no half bundle under a digest.
            away = os.path.join(self.bundles, f".{digest}.old")
            os.rename(os.path.join(self.bundles, digest), away)
            shutil.rmtree(away, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path("measured", digest + ".json"))
        return removed

    def status(self) -> Dict[str, Any]:
        """Everything that is installed, as one JSON object."""
        bundles = []
        for digest in self.digests():
            folder = os.path.join(self.bundles, digest)
            try:
                contents = manifest.load(folder)
                bundles.append(
                    {
                        "digest": digest,
                        "name": contents.name,
                        "created": contents.created,
                        "default_variant": contents.default_variant,
                    }
                )
            except JetmaskError as error:
                bundles.append({"digest": digest, "damaged": str(error.what)})
        return {
            "state": self.folder,
            "current": self.link("current"),
            "previous": self.link("previous"),
            "bundles": bundles,
            "trial": self.read(_TRIAL),
            "service": self.service(),
            "result": self.result(),
        }


def fsync_folder(folder: str) -> None:
    """Make renames inside `folder` last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def show(status: Dict[str, Any]) -> str:
    """`Store.status` as a short text."""
    lines = []
    for bundle in status["bundles"]:
        marks = [name for name in ("current", "previous") if status[name] == bundle["digest"]]
        lines.append(
            "{}  {}  {}  {}".format(
                bundle["digest"][:16],
                bundle.get("created", ""),
                bundle.get("name", "damaged: " + bundle.get("damaged", "")),
                " ".join(marks),
            ).rstrip()
        )
    if not lines:
        lines.append(f"no bundle is installed in {status['state']}")
    if status["trial"]:
        trial = status["trial"]
        lines.append(f"on trial: {trial['digest'][:16]} (was {(trial['was'] or 'none')[:16]})")
    if status["service"]:
        lines.append(f"service: {status['service']['kind']}  {status['service'].get('url', '')}")
    if status["result"]:
        lines.append(f"last activation: {json.dumps(status['result'].get('message'))}")
    return "\n".join(lines)
