"""Keep frames of a camera as photographs to be labelled: every few seconds, up to a limit, private to their owner.

Nothing is kept unless this is asked for by name. Where faces are to be blurred, a frame on which they could not be
looked for is not kept.
"""

import errno
import json
import os
import shutil
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from jetson import files
from jetson.capture import source
from jetson.capture.camera import Camera
from jetson.errors import BadInput, JetmaskError
from jetson.evaluation import unsure
from jetson.inference.detector import Detector, Faces
from jetson.web import picture

LOG = "collected.jsonl"
UNSURE = 0.5  # from here on a frame counts as unsure
SPARE_BYTES = 256000000  # left free on the disk for everything else
QUALITY = 92
PATIENCE_S = 30.0  # without a first frame


class Settings(NamedTuple):
    """What is kept: a frame of each source `every_s` seconds, in the folder `out`, up to `limit_bytes` in all.

    only: "unsure" and "disagree", either of which is reason enough; empty: every frame. blur: faces are made
    unrecognisable. most: end after so many (0: no end). score: from which a face is shown.
    """

    sources: Sequence[source.Source]
    out: str
    every_s: float = 2.0
    limit_bytes: int = 500000000
    only: Sequence[str] = ()
    blur: bool = False
    most: int = 0
    score: float = 0.4


class Outcome(NamedTuple):
    """How many frames were looked at and kept, the bytes of all that is in the folder, and why it is over."""

    looked_at: int
    kept: int
    folder_bytes: int
    ended: str


class Collector:
    """Collects until it is stopped. `detectors`: none, one (for blur and unsure), or two (for disagree, too).

    JetmaskError where there are too few for what is asked.
    """

    def __init__(
        self, settings: Settings, detectors: Sequence[Detector], say: Callable[[str], None] = lambda text: None
    ) -> None:
        need = 2 if "disagree" in settings.only else 1 if settings.blur or settings.only else 0
        if len(detectors) < need:
            raise JetmaskError("there is no detector for what is asked", settings.out, f"{need} variants that run here")
        self.settings, self.detectors, self.say = settings, list(detectors), say
        self.images = os.path.join(settings.out, "images")
        self._stop = threading.Event()
        self._number = 0
        self._bytes = 0
        self._looked_at = self._kept = 0

    def stop(self) -> None:
        """End soon; safe in a signal's handler."""
        self._stop.set()

    def run(self) -> Outcome:
        """Collect; BadInput where no frame comes at all, JetmaskError where another collector uses the folder."""
        os.makedirs(self.images, mode=0o700, exist_ok=True)
        with files.lock(os.path.join(self.settings.out, "collect.lock"), wait=False):
            files.sweep_aside(self.images)
            self._bytes = sum(entry.stat().st_size for entry in os.scandir(self.images) if entry.is_file())
            cameras = [Camera(where, index).start() for index, where in enumerate(self.settings.sources)]
            try:
                ended = self._collect(cameras)
            finally:
                for camera in cameras:
                    camera.stop()
        return Outcome(self._looked_at, self._kept, self._bytes, ended)

    def _collect(self, cameras: List[Camera]) -> str:
        began = time.monotonic()
        due = [began for _ in cameras]
        told = ["" for _ in cameras]
        while not self._stop.is_set():
            over = self._full()
            if over:
                return over
            for index, camera in enumerate(cameras):
                if camera.status == "lost" and told[index] != camera.last_error:
                    told[index] = camera.last_error
                    self.say(f"{camera.source.label}: no picture: {camera.last_error}; it is tried again")
                if time.monotonic() >= due[index] and camera.fresh():
                    due[index] = time.monotonic() + self.settings.every_s
                    try:
                        self._look(camera)
                    except OSError as error:
                        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                            raise
                        return "the disk is full"
            if not any(camera.frames for camera in cameras) and time.monotonic() - began > PATIENCE_S:
                reasons = "; ".join(camera.last_error or "nothing came" for camera in cameras)
                raise BadInput(f"no frame came in {PATIENCE_S:.0f} s: {reasons}", cameras[0].source.label)
            if all(camera.status == "ended" and not camera.fresh() for camera in cameras):
                return "the source has ended"
            self._stop.wait(min(0.02, self.settings.every_s))
        return "stopped"

    def _full(self) -> str:
        """Why no further frame can be kept; "" while one can."""
        settings = self.settings
        if self._bytes >= settings.limit_bytes:
            return f"the limit of {settings.limit_bytes / 1e6:g} MB is reached"
        if settings.most and self._kept >= settings.most:
            return f"{self._kept} frames are kept"
        if shutil.disk_usage(self.images).free < SPARE_BYTES:
            return f"less than {SPARE_BYTES / 1e6:.0f} MB are free on the disk"
        return ""

    def _look(self, camera: Camera) -> None:
        frame = camera.take()
        if frame is None:
            return
        try:
            self._looked_at += 1
            found = [detector.detect(frame.image, unsure.LOWEST) for detector in self.detectors]
            facts = self._reasons(found)
            if facts is not None:
                self._keep(camera, frame.image, found, facts)
        finally:
            frame.release()

    def _reasons(self, found: List[Faces]) -> Optional[Dict[str, Any]]:
        """What is written down of a frame that is to be kept; None where it is not."""
        facts: Dict[str, Any] = {}
        if found:
            facts["faces"] = int((found[0].confidence > self.settings.score).sum())
            facts["unsure"] = round(unsure.unsureness(found[0], self.settings.score), 3)
        if len(found) > 1:
            facts["disagree"] = unsure.disagree(*[_shown(faces, self.settings.score) for faces in found[:2]])
        only = self.settings.only
        wanted = not only
        wanted |= "unsure" in only and facts.get("unsure", 0) >= UNSURE
        wanted |= "disagree" in only and facts.get("disagree", False)
        return facts if wanted else None

    def _keep(self, camera: Camera, image: np.ndarray, found: List[Faces], facts: Dict[str, Any]) -> None:
        if self.settings.blur:
            faces = found[0]
            picture.blur(image, faces.xyxy[faces.confidence > self.settings.score * picture.BLUR_SHARE])
        now = time.time()
        self._number += 1
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f"{int(now % 1 * 1000):03d}"
        name = f"{stamp}-{camera.index}-{self._number:06d}.jpg"
        data = picture.encode(image, QUALITY)
        if self._bytes + len(data) > self.settings.limit_bytes:
            self._bytes = self.settings.limit_bytes  # full: a smaller frame that would still fit is not waited for
            return
        path = os.path.join(self.images, name)
        files.write_bytes(path, data)
        os.chmod(path, 0o600)
        self._bytes += len(data)
        self._kept += 1
        self._write_down(
            {"file": name, "time": round(now, 3), "source": camera.source.label, "blurred": self.settings.blur, **facts}
        )

    def _write_down(self, line: Dict[str, Any]) -> None:
        handle = os.open(os.path.join(self.settings.out, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, (json.dumps(line) + "\n").encode())  # one call: a kill leaves no half line
        finally:
            os.close(handle)


def _shown(faces: Faces, score: float) -> Faces:
    """The faces that are shown: those over `score`."""
    kept = faces.confidence > score
    return Faces(faces.xyxy[kept], faces.scores[kept])
