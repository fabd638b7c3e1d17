"""What a rollout has done, on the disk of the machine that steers it: one JSON file beside the fleet file.

It is written before a device is switched and after, whole or not at all, so that after a kill at any moment every
device that may have been switched is in it. What a device really runs is asked of the device.
"""

import os
import secrets
import threading
import time
from typing import Any

from jetson import files
from jetson.errors import BadInput

GOING, UNDOING, DONE, UNDONE, FAILED = "going", "undoing", "done", "undone", "failed"
# A device's phases. Those of TOUCHED may stand on the new bundle because of this rollout.
SWITCHING, UPDATED, SAME, BACK, STUCK = "switching", "updated", "already there", "rolled back", "rollback failed"
TOUCHED = (SWITCHING, UPDATED, STUCK)


def path_of(fleet: str) -> str:
    """The journal of a fleet file: fleet.yaml -> fleet.rollout.json."""
    return os.path.splitext(fleet)[0] + ".rollout.json"


class Journal:
    """The last rollout over one fleet; `state` is None where there has been none. Safe from several threads.

    `hosts`: {name: {"phase", "was": the digest before or null, "service": whether the way it was started is kept
    there, "why"}}, of devices that came to their switch in this rollout.
    """

    def __init__(self, fleet: str) -> None:
        self.path = path_of(fleet)
        self._lock = threading.Lock()
        self._document: dict[str, Any] = {"state": None, "hosts": {}}
        if os.path.exists(self.path):
            self._document = files.read_json(self.path)
            _check(self._document, self.path)

    @property
    def state(self) -> str | None:
        """GOING, UNDOING (both unfinished), DONE, UNDONE, FAILED, or None."""
        return self._document["state"]

    @property
    def unfinished(self) -> bool:
        """Whether the last rollout was cut off."""
        return self.state in (GOING, UNDOING)

    @property
    def rollout(self) -> str:
        """The rollout's id."""
        return self._document["rollout"]

    @property
    def digest(self) -> str:
        """The root digest of its bundle."""
        return self._document["digest"]

    def begin(self, digest: str, bundle: str) -> None:
        """A new rollout; what is known of the one before is forgotten."""
        with self._lock:
            self._document = {
                "schema_version": 1,
                "rollout": f"{int(time.time())}-{secrets.token_hex(3)}",
                "digest": digest,
                "bundle": bundle,
                "state": GOING,
                "hosts": {},
            }
            files.write_json(self.path, self._document)

    def turn(self, state: str) -> None:
        """Note the rollout's state."""
        with self._lock:
            self._document["state"] = state
            files.write_json(self.path, self._document)

    def host(self, name: str) -> dict[str, Any]:
        """What is known of a device in this rollout; {} where it has not come to its switch."""
        with self._lock:
            return dict(self._document["hosts"].get(name, {}))

    def note(self, name: str, **facts: Any) -> None:
        """Keep facts of a device; on the disk when this returns."""
        with self._lock:
            self._document["hosts"].setdefault(name, {}).update(facts)
            files.write_json(self.path, self._document)

    def touched(self) -> list[str]:
        """The devices that may stand on the new bundle because of this rollout."""
        with self._lock:
            return [name for name, facts in self._document["hosts"].items() if facts["phase"] in TOUCHED]


def _check(document: Any, path: str) -> None:
    good = (
        isinstance(document, dict)
        and document.get("schema_version") == 1
        and document.get("state") in (GOING, UNDOING, DONE, UNDONE, FAILED)
        and all(isinstance(document.get(key), str) for key in ("rollout", "digest", "bundle"))
        and isinstance(document.get("hosts"), dict)
        and all(
            isinstance(facts, dict) and isinstance(facts.get("phase"), str) and "was" in facts
            for facts in document["hosts"].values()
        )
    )
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version != 1:
        raise BadInput(
            f"a different version of jetmask wrote this journal (schema_version {version})",
            path,
            "schema_version 1",
            "end that rollout with the version that began it; or ask the devices "
            "(--fleet FILE --status), then remove it",
        )
    if not good:
        raise BadInput(
            "this is not the journal of a rollout",
            path,
            "the file that `jetmask deploy --fleet` wrote",
            "ask the devices (--fleet FILE --status), then remove it",
        )
