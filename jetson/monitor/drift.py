"""Drift: does a camera still give what it gave in its first week, or should somebody look at it?

Once a second a frame's brightness and sharpness are measured; scores and sizes of faces and the live agreement come
from the samples of the trade-off (from the results where there is none). Only histograms are kept, never a picture.
What this cannot tell: why. A new wall colour, another season, a moved camera and a dirty lens are all "different"; what
changes within the first week (days, nights, its weekend) is taken for usual; what goes on elsewhere in the picture
while the figures stay is not seen.
"""

import hashlib
import math
import os
import re
import threading
import time
from typing import Any, Callable, Collection, Dict, List, NamedTuple, Optional, Sequence

import cv2
import numpy as np

from jetson import files
from jetson.capture.address import shown
from jetson.errors import BadInput
from jetson.evaluation import agreement
from jetson.inference.detector import Faces
from jetson.monitor.drift_series import NOW, REFERENCE, Scale, Series
from jetson.monitor.journal import stamp

DEFAULT_DAYS = 7.0
SAMPLE_S = 1.0
SAVE_S = 300.0
# A camera that was told to be looked at is as before when it was below this for a day's slices: by night, a lamp that
# is dead by day looks as usual, and the word must not come and go.
SETTLED = 0.8
CALM_SLICES = 24
_SIDES = (480, 640)  # of the middle of the picture that sharpness is measured in
_MOST_CAMERAS = 128
_SCHEMA = 1
# Passwords that earlier versions left out of a camera's name.
_FORMER_SECRET = re.compile(
    r"((?:[/?&;]|(?<=[^/?&;\s])_)(?:password|passwd|pass|pwd|psw|token)=)"
    r"(?:(?!_[a-z]+=)[^&;/?\s\"'])+",
    re.IGNORECASE,
)
SCALES = (
    Scale("brightness", "brightness, mean grey level", 0.0, 256.0, 32, 12.0, False),
    # log10 of the Laplacian's variance over the picture's: a factor of light drops out, so that dark is not blurred.
    Scale("sharpness", "sharpness, log10 of edges to contrast", -4.0, 2.0, 48, 0.25, False),
    Scale("score", "score of faces", 0.0, 1.0, 20, 0.1, True),
    Scale("size", "height of faces, log2 of the picture's height", -8.0, 0.0, 32, 0.3, False),
    Scale("agreement", "agreement with the most accurate variant, per frame", 0.0, 1.0, 20, 0.08, True),
)


def brightness(image: np.ndarray) -> float:
    """The mean grey level, 0 to 255, of uint8 (h, w, 3) BGR."""
    return float(cv2.cvtColor(np.ascontiguousarray(image[::8, ::8]), cv2.COLOR_BGR2GRAY).mean())


def sharpness(image: np.ndarray) -> float:
    """log10(variance of the Laplacian / variance) of the middle of a picture, uint8 (h, w, 3) BGR.

    The variance of the Laplacian as a measure of focus: Pech-Pacheco et al., ICPR 2000.
    """
    top, left = [max(0, (side - most) // 2) for side, most in zip(image.shape[:2], _SIDES)]
    grey = cv2.cvtColor(image[top : top + _SIDES[0], left : left + _SIDES[1]], cv2.COLOR_BGR2GRAY)
    edges, contrast = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1], cv2.meanStdDev(grey)[1]
    return math.log10((float(edges[0, 0]) ** 2 + 0.01) / (float(contrast[0, 0]) ** 2 + 1.0))


def identity(source: Any) -> str:
    """What a camera is called in the file: its options (size, rate) may change without its being another one.

    Of one in a network neither user name, path nor query is written down, since there may be a password in each: a
    digest tells two cameras at one address apart, and is slow to make, so that nobody tries words against it.
    """
    if source.kind not in ("rtsp", "stream"):
        return f"{source.kind}:{source.path}"
    address = re.sub(r"^([^/]*//)[^/]*@", r"\1", source.path)
    digest = hashlib.pbkdf2_hmac("sha256", address.encode("utf-8", "surrogateescape"), b"jetmask drift", 50000)
    return f"{shown(source.uri)} {digest.hex()[:16]}"


def _former_identity(source: Any) -> str:
    """What it was called before: a file that was learnt then is still its own."""
    if source.kind != "rtsp":
        return f"{source.kind}:{source.path}"
    hidden = re.sub(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s\"']*@", r"\1***@", source.uri)
    return _FORMER_SECRET.sub(r"\1***", hidden)


def default_path() -> Optional[str]:
    """Where it is kept when no place is named: in the state folder that a deployed runner is given, else nowhere."""
    state = os.environ.get("JETMASK_STATE")
    return os.path.join(state, "drift.json") if state else None


def model_key(variant: Any, runtime: str) -> str:
    """What finds the faces; histograms of two models are never compared."""
    return f"{variant.sha256[:16]} {variant.input_wh[0]}x{variant.input_wh[1]} {runtime}"


def open_for(
    wish: Optional[str],
    days: float,
    sources: Sequence[Any],
    tell: Callable[[int, bool, str], None],
    warn: Callable[[str], None],
    was: Sequence[str] = (),
) -> Optional["Drift"]:
    """What `serve` was asked for: None for "off". BadInput where the file `wish` is no use; the default place is only
    warned about, since nobody asked for it and the camera matters more.
    """
    if wish == "off":
        return None
    known = [known_as(one, was[number] if was else "") for number, one in enumerate(sources)]
    try:
        return Drift(wish or default_path(), known, days, tell).start()
    except BadInput as error:
        if wish:
            raise
        warn("The drift reference is not saved: {}".format(", ".join(str(error).split("\n  "))))
    return Drift(None, known, days, tell).start()


class Known(NamedTuple):
    """How a camera is known. `name`: what its owner calls it, or ""; `identity`: what is read; `former`: what that was
    called by earlier versions; `was`: its name before.
    """

    identity: str
    name: str = ""
    former: str = ""
    was: str = ""

    def key(self, position: int) -> str:
        """What it is called in the file: its name, which has no ":", or position and identity, which has one."""
        return self.name or f"{position} {self.identity}"

    def found_in(self, position: int, names: Collection[str]) -> Optional[str]:
        """Which of the names of a file is this camera's: its own, its former one, or what it was before it had one."""
        if self.key(position) in names:
            return self.key(position)
        if self.was in names and self.was:
            return self.was
        identities = [one for one in (self.identity, self.former) if one]
        wanted = [f"{position} {one}" for one in identities]
        if self.name:  # by what it shows, wherever it stood then
            wanted += sorted(name for name in names if name.partition(" ")[2] in identities and name[0].isdigit())
        return next((name for name in wanted if name in names), None)


def known_as(where: Any, was: str = "") -> Known:
    """How the camera of a source is known."""
    return Known(identity(where), where.name, _former_identity(where), was)


class _Camera:
    """What is measured of one camera, and what was judged."""

    def __init__(self, known: Known, position: int, slice_s: float) -> None:
        self.known = known
        self.position = position
        self.key = known.key(position)
        self.due = 0.0
        self.look = False
        self.reason = ""
        self.odd_at = 0.0  # when it was last over SETTLED
        self.verdicts: Dict[str, Dict[str, Any]] = {}
        self.series = {scale.name: Series(scale, slice_s) for scale in SCALES}

    @property
    def title(self) -> str:
        return self.known.name or f"Camera {self.position}"

    def to_json(self, wall: float) -> Dict[str, Any]:
        return {
            "saved": round(wall, 3),
            "signals": {name: series.to_json() for name, series in self.series.items()},
        }


class Drift:
    """All cameras' signals. `see` and `sample` take what is measured; a thread judges and writes to `path`, if any.

    Cameras are meant by their number: those of `cameras` from 0 on, then as they are added. `tell(camera, look,
    reason)` is called in that thread when a camera begins or ends to be one to look at. `wall` and `clock` give Unix
    and monotonic seconds. BadInput when the file is not ours.
    """

    def __init__(
        self,
        path: Optional[str],
        cameras: Sequence[Known],
        days: float = DEFAULT_DAYS,
        tell: Callable[[int, bool, str], None] = lambda camera, look, reason: None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.days = days
        self.error = ""
        self._slice_s = days * 86400.0 / REFERENCE
        self._cameras = {number: _Camera(known, number, self._slice_s) for number, known in enumerate(cameras)}
        self._tell = tell
        self._wall = wall
        self._clock = clock
        self._lock = threading.Lock()
        self._others: Dict[str, Any] = {}  # cameras of the file that are not here today
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)
        if path:
            self._load(path)
        self.judge()

    # -- cameras that come and go ---------------------------------------------------------------------------------

    def add(self, camera: int, known: Known) -> None:
        """One more camera; what was learnt of it before goes on."""
        made = _Camera(known, len(self._cameras), self._slice_s)
        with self._lock:
            name = known.found_in(made.position, self._others)
            if name is not None:
                self._take(made, self._others.pop(name), self.path or "memory")
            cameras = dict(self._cameras)  # replaced as a whole, for other threads
            cameras[camera] = made
            self._cameras = cameras
        self._judge_one(camera, made)

    def remove(self, camera: int) -> None:
        """The camera is watched no longer; what was learnt of it is kept."""
        with self._lock:
            gone = self._cameras.get(camera)
            self._cameras = {number: one for number, one in self._cameras.items() if number != camera}
            if gone is not None:
                self._others[gone.key] = gone.to_json(self._wall())

    def rename(self, camera: int, known: Known) -> None:
        """The camera is called otherwise, or read from elsewhere."""
        with self._lock:
            one = self._cameras[camera]
            one.known, one.key = known, known.key(one.position)

    def arrange(self, cameras: Sequence[int]) -> None:
        """The cameras stand in this order now."""
        with self._lock:
            for position, camera in enumerate(cameras):
                self._cameras[camera].position = position

    # -- taking -------------------------------------------------------------------------------------------------------

    def see(self, camera: int, image: np.ndarray) -> bool:
        """Measure a frame if one is due; whether it was."""
        now, one = self._clock(), self._cameras.get(camera)
        if one is None or now < one.due:
            return False
        # From the due time, not from now: otherwise 5 frames/s become a sample each 1.2 s.
        one.due = max(one.due + SAMPLE_S, now - SAMPLE_S)
        light, edges = brightness(image), sharpness(image)
        with self._lock:
            wall, series = self._wall(), one.series
            series["brightness"].add([light], wall)
            series["sharpness"].add([edges], wall, "{1}x{0}".format(*image.shape))
        return True

    def sample(self, key: str, camera: int, height: int, faces: Faces, others: Sequence[Faces] = ()) -> None:
        """Count the faces that the model `key` found in one frame, `height` px high; `others`: what others found."""
        sizes = np.log2(np.maximum(faces.xyxy[:, 3] - faces.xyxy[:, 1], 1e-3) / height)
        shares = []
        for other in others:
            left, right = agreement.match(faces, other)
            either = len(faces) + len(other) - len(left)
            if either:
                shares.append(float((faces.labels[left] == other.labels[right]).sum()) / either)
        one = self._cameras.get(camera)
        if one is None:
            return
        with self._lock:
            wall, series = self._wall(), one.series
            series["score"].add(faces.confidence, wall, key)
            series["size"].add(sizes, wall, key)
            if others:
                series["agreement"].add(shares, wall, key)

    # -- judging ------------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Compare now with then, and tell what has changed."""
        for number, camera in list(self._cameras.items()):
            self._judge_one(number, camera)

    def _judge_one(self, number: int, camera: _Camera) -> None:
        with self._lock:
            verdicts = {name: series.verdict() for name, series in camera.series.items()}
        now, ratio, before = self._clock(), _ratio(verdicts) or 0.0, camera.look
        if ratio >= SETTLED:
            camera.odd_at, camera.reason = now, reason(verdicts)
        look = ratio >= 1.0 or before and now - camera.odd_at < CALM_SLICES * self._slice_s
        camera.verdicts, camera.look = verdicts, look
        if look != before:
            self._tell(number, look, camera.reason if look else f"similar to its first {self._span()} again")

    def _span(self) -> str:
        return f"{self.days:.0f} days" if self.days >= 2 else f"{24 * self.days:.1f} hours"

    def state(self, camera: int) -> Optional[Dict[str, Any]]:
        """{"ratio", "look", "reason", "state", "learned"} of one camera; ratio from 1 on is drift, None: not yet."""
        one = self._cameras.get(camera)
        return None if one is None or not one.verdicts else self._state(one)

    def _state(self, camera: _Camera) -> Dict[str, Any]:
        verdicts = camera.verdicts
        learned = min(verdicts["brightness"]["learned"], REFERENCE)
        states = [value["state"] for value in verdicts.values()]
        state = "judged" if "judged" in states else verdicts["brightness"]["state"]
        return {
            "ratio": _ratio(verdicts),
            "look": camera.look,
            "state": state,
            "learned": round(learned / REFERENCE, 3),
            "reason": camera.reason if camera.look else "",
        }

    def full(self) -> Dict[str, Any]:
        """Everything for the page: `state` of each camera with the histograms of each signal."""
        cameras = []
        for one in sorted(self._cameras.values(), key=lambda each: each.position):
            signals = []
            for scale in SCALES:
                verdict = one.verdicts[scale.name]
                signals.append(dict(verdict, name=scale.name, title=scale.title, low=scale.low, high=scale.high))
            name = one.known.name or one.known.identity
            cameras.append(dict(self._state(one), index=one.position, name=name, signals=signals))
        return {
            "time": stamp(self._wall()),
            "days": self.days,
            "slice_s": self._slice_s,
            "now_s": NOW * self._slice_s,
            "kept": bool(self.path),
            "error": self.error,
            "cameras": cameras,
        }

    def warnings(self) -> List[str]:
        """What an operator should know, in words."""
        found = [
            f"{one.title} looks different from its first {self._span()}: {one.reason}. Compare at /drift"
            for one in list(self._cameras.values())
            if one.look
        ]
        return found + ([self.error] if self.error else [])

    # -- the thread and the file ----------------------------------------------------------------------------------

    def start(self) -> "Drift":
        """Begin to judge and to write."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Write once more and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        saved = self._clock()
        while not self._stop.wait(min(10.0, self._slice_s)):
            self.judge()
            if self._clock() - saved >= min(SAVE_S, self._slice_s):
                saved = self._clock()
                self.save()
        self.save()

    def save(self) -> None:
        """Write the histograms; a full disk is told in `error` and tried again the next time."""
        if not self.path:
            return
        with self._lock:
            here = {one.key: one.to_json(self._wall()) for one in self._cameras.values()}
            others = sorted(self._others.items(), key=lambda item: -item[1]["saved"])[
                : max(0, _MOST_CAMERAS - len(here))
            ]
        try:
            files.write_json(self.path, {"schema": _SCHEMA, "days": self.days, "cameras": dict(others, **here)})
            self.error = ""
        except (OSError, BadInput) as error:
            self.error = "What the cameras looked like is not written: {}".format(
                getattr(error, "strerror", None) or error.args[0]
            )

    def _load(self, path: str) -> None:
        try:
            contents = files.read_json(path)
        except BadInput as error:
            if isinstance(error.__cause__, FileNotFoundError):
                self.save()  # a place that cannot be written to is told at once, not after five minutes
                if self.error:
                    raise BadInput(self.error, path, "a file in a folder that this user may write to") from error
                return
            raise
        remedy = "move the file away to start learning again"
        if (
            not isinstance(contents, dict)
            or contents.get("schema") != _SCHEMA
            or not isinstance(contents.get("cameras"), dict)
        ):
            raise BadInput("not a valid drift file", path, "a file that `serve --drift` wrote", remedy)
        if contents.get("days") != self.days:
            raise BadInput(
                f"this drift file was recorded with --drift-days {contents.get('days')}",
                path,
                f"--drift-days {self.days}",
                remedy,
            )
        for name, camera in contents["cameras"].items():
            where = f"{path}, camera {name}"
            if (
                not isinstance(camera, dict)
                or not isinstance(camera.get("signals"), dict)
                or not isinstance(camera.get("saved"), (int, float))
            ):
                raise BadInput("not a valid drift file", where, "a file that `serve --drift` wrote", remedy)
            self._others[name] = camera
        # Those that the file knows by their own names first: no other camera takes theirs.
        for own in (True, False):
            for one in self._cameras.values():
                found = one.known.found_in(one.position, self._others)
                if found is not None and (found == one.key) == own:
                    self._take(one, self._others.pop(found), f"{path}, camera {found}")

    def _take(self, one: _Camera, kept: Dict[str, Any], where: str) -> None:
        """Let a camera go on from what was learnt of it."""
        for scale in SCALES:
            if scale.name in kept["signals"]:
                series = Series.from_json(scale, self._slice_s, kept["signals"][scale.name], f"{where}, {scale.name}")
                series.forget_old(self._wall())
                one.series[scale.name] = series


def _ratio(verdicts: Dict[str, Dict[str, Any]]) -> Optional[float]:
    known = [value["ratio"] for value in verdicts.values() if value["ratio"] is not None]
    return max(known) if known else None


def reason(verdicts: Dict[str, Dict[str, Any]]) -> str:
    """What has moved, the most first: "brightness 79.2 instead of 133.1"."""
    moved = sorted(
        (name for name, value in verdicts.items() if (value["ratio"] or 0) >= SETTLED),
        key=lambda name: -verdicts[name]["ratio"],
    )
    return ", ".join(
        f"{name} {verdicts[name]['mean_now']:.4g} instead of {verdicts[name]['mean_then']:.4g}" for name in moved
    )
