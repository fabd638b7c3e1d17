"""What a long `bench` has measured so far, kept on the disk: the same command goes on after a power cut or Ctrl-C."""

import contextlib
import hashlib
import json
import os
import time
from typing import Any, Dict, Optional

from jetson import files
from jetson.engine import cache
from jetson.errors import BadInput

KEPT_S = 24 * 3600.0  # what was measured longer ago was measured in another state of the machine


class Progress:
    """Values by step, in a file of its own for each `identity` (what is measured, how, by what). Without a folder that
    can be written nothing is kept, and nothing else changes."""

    def __init__(self, identity: Dict[str, Any], fresh: bool = False) -> None:
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8")).hexdigest()[:20]
        folder = os.path.join(os.path.dirname(os.path.abspath(cache.default_folder())), "bench")
        self.path = os.path.join(folder, key + ".json")
        self.steps: Dict[str, Any] = {}
        self.resumed = 0
        self._identity = identity
        if fresh:
            return
        with contextlib.suppress(BadInput, OSError, KeyError, TypeError):
            kept = files.read_json(self.path)
            if kept["identity"] == json.loads(json.dumps(identity)) and 0 <= time.time() - kept["saved"] <= KEPT_S:
                self.steps = dict(kept["steps"])
                self.resumed = len(self.steps)

    def get(self, step: str) -> Optional[Any]:
        """What was measured in this step, or None."""
        return self.steps.get(step)

    def put(self, step: str, value: Any) -> None:
        """A step is done."""
        self.steps[step] = value
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            files.write_json(self.path, {"identity": self._identity, "saved": time.time(), "steps": self.steps})

    def finish(self) -> None:
        """All is measured: the next run begins anew."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
