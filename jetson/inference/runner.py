"""The inference loop: cameras in, tracked faces out, three overlapped stages and no queue that could grow.

prepare (letterbox into an input buffer) | infer | finish (decode, suppress, track, publish) run in a thread each, so
that the engine is busy all the time. A frame that waits for the engine is replaced by a newer one of its camera. Only
where every frame counts, and the engine is a process of its own, is the next frame given to it ahead of its turn.
"""

import queue
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional

import cv2
import numpy as np

from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.capture import source
from jetson.capture.camera import Camera, Frame
from jetson.inference.detector import Detector, Faces
from jetson.inference.histogram import Histogram, Rate
from jetson.tracking import tracker

STAGES = ("wait", "preprocess", "queue", "infer", "postprocess", "total")
_SLOTS = 4  # preparing, finishing, and up to two under way in the engine
_AHEAD_RUN = 8  # inferences in a row with the next one given ahead, before the trade-off is asked whether it is due
_ERRORS_BEFORE_REOPEN = 3


class Result(NamedTuple):
    camera: int
    number: int
    arrived: float
    done: float
    frame_wh: Any
    faces: Faces
    tracks: List[tracker.Track]
    events: List[tracker.Event]
    extra: Dict[str, Any]
    ms: Dict[str, float]


class Active(NamedTuple("Active", [("variant", Any), ("detector", Detector), ("generation", int), ("own", bool)])):
    """The variant that runs now; `own`: the runner closes its detector when it goes."""

    __slots__ = ()


class View:
    """One camera with its tracker and its newest result."""

    def __init__(self, camera: Camera, score: float, classes: Classes = MASK_CLASSES) -> None:
        self.camera = camera
        self.tracker = tracker.Tracker(score, len(classes.names), classes.ignored())
        self.latest: Optional[Result] = None
        self.results = 0
        self.rate = Rate()
        self.tracking = threading.Lock()


class _Slot:
    """An input buffer on its way through the stages, with the frame it was made from."""

    def __init__(self) -> None:
        self.blob: Optional[np.ndarray] = None
        self.outputs: Dict[str, np.ndarray] = {}
        self.frame: Optional[Frame] = None
        self.active: Optional[Active] = None
        self.scale = (1.0, 1.0)
        self.times = [0.0] * 4  # prepare begins, prepare ends, infer begins, infer ends

    def drop(self) -> None:
        if self.frame is not None:
            self.frame.release()
            self.frame = None


class Runner:
    """Runs a detector on cameras until `stop()`.

    `on_result(view, frame, result)` is called in the finishing thread while the frame is valid. `spare(idle)` is
    called in the inferring thread between two inferences; it returns whether it used the time (the live trade-off).
    """

    def __init__(
        self,
        sources: List[source.Source],
        variant: Any,
        detector: Detector,
        score: Optional[float] = None,
        every_frame: bool = False,
        on_result: Optional[Callable[[View, Frame, Result], None]] = None,
        spare: Optional[Callable[[bool], bool]] = None,
        reopen: Optional[Callable[[Any], Detector]] = None,
        classes: Classes = MASK_CLASSES,
    ) -> None:
        self.score = detector.decode["score"] if score is None else score
        self._score_of_bundle = score is None
        self._change = threading.Condition()
        self.views = [
            View(Camera(where, index, self._wake, every_frame), self.score, classes)
            for index, where in enumerate(sources)
        ]
        self.active = Active(variant, detector, 0, True)
        self.histograms = {stage: Histogram() for stage in STAGES}
        self.rate = Rate()
        self.results = 0
        self.engine_errors = 0
        self.engine_error = ""
        self.last_error = 0.0  # monotonic
        self.started = time.monotonic()
        self.beat = self.last_result = self.started
        self._on_result = on_result or (lambda view, frame, result: None)
        self.spare = spare
        self._reopen = reopen
        self._every_frame = every_frame
        self._next = 0
        self._slots = [_Slot() for _ in range(_SLOTS)]
        self._free: queue.Queue = queue.Queue()
        for slot in self._slots:
            self._free.put(slot)
        self._ready: Optional[_Slot] = None
        self._taking = False  # a frame is in hand between its camera and a slot
        self._infer_ended = 0.0
        self._failures = 0
        self._done: queue.Queue = queue.Queue(maxsize=_SLOTS)
        self._retired: List[Active] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=stage, name=stage.__name__.strip("_"), daemon=True)
            for stage in (self._prepare, self._infer, self._finish)
        ]

    def start(self) -> "Runner":
        """Start the cameras and the stages."""
        # Resizing a frame takes under a millisecond; a pool of threads for it would only push the engine aside.
        cv2.setNumThreads(1)
        self.started = self.beat = self.last_result = time.monotonic()
        for view in self.views:
            view.camera.start()
        for thread in self._threads:
            thread.start()
        return self

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the cameras, let the frames in flight finish, close the engine."""
        for view in self.views:
            view.camera.ask_to_stop()  # all at once, then each is waited for
        self._stop.set()
        self._wake()
        for view in self.views:
            view.camera.stop()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.05, end - time.monotonic()))
        if not self._threads[1].is_alive():
            for active in self._retired + [self.active]:
                if active.own:
                    active.detector.close()

    @property
    def ended(self) -> bool:
        """Whether every source has come to its end and every frame of it is through."""
        return all(view.camera.status == "ended" for view in self.views) and self.drained

    @property
    def drained(self) -> bool:
        """Whether no frame is on its way."""
        # In the order in which a frame moves on, so that none slips past the question.
        return (
            not any(view.camera.fresh() for view in self.views)
            and not self._taking
            and all(slot.frame is None for slot in self._slots)
        )

    def swap(self, variant: Any, detector: Detector, own: bool = True) -> None:
        """Go over to another detector with the next frame; the old one is closed when nothing uses it any more.

        `own` False: the caller keeps the detector and closes it after `stop()`.
        """
        with self._change:
            self._retired.append(self.active)
            self.active = Active(variant, detector, self.active.generation + 1, own)
            if self._score_of_bundle:
                self.score = detector.decode["score"]
                for view in self.views:
                    view.tracker.score = self.score

    def _wake(self) -> None:
        with self._change:
            self._change.notify_all()

    # -- stage 1 ------------------------------------------------------------------------------------------------

    def _take(self) -> Optional[Frame]:
        """The next frame, the cameras in turn; None when the runner stops."""
        with self._change:
            while not self._stop.is_set():
                self._taking = True
                for offset in range(len(self.views)):
                    index = (self._next + offset) % len(self.views)
                    frame = self.views[index].camera.take() if self.views[index].camera.fresh() else None
                    if frame is not None:
                        self._next = index + 1
                        return frame
                self._taking = False
                self._change.wait(0.25)
        return None

    def _prepare(self) -> None:
        while not self._stop.is_set():
            try:
                slot = self._free.get(timeout=0.25)
            except queue.Empty:
                continue
            frame = self._take()
            while frame is not None:
                try:
                    self._fill(slot, frame)
                except Exception as error:  # one odd frame must not end the loop
                    self._note("preparing a frame", error)
                    slot.drop()
                    self._free.put(slot)
                    self._taking = False
                    break
                frame = self._offer(slot)
        self._wake()

    def _note(self, what: str, error: Exception) -> None:
        self.engine_errors += 1
        self.last_error = time.monotonic()
        self.engine_error = f"{what}: {type(error).__name__}: {error}"

    def _fill(self, slot: _Slot, frame: Frame) -> None:
        slot.drop()
        if slot.active is not self.active:
            if slot.blob is not None:
                slot.active.detector.return_input(slot.blob)
            slot.active = self.active
            slot.blob = slot.active.detector.borrow_input()
        slot.frame = frame
        slot.times[0] = time.monotonic()
        _, slot.scale = slot.active.detector.prepare(frame.image, slot.blob)
        slot.times[1] = time.monotonic()

    def _offer(self, slot: _Slot) -> Optional[Frame]:
        """Lay the slot out for the engine; a newer frame of the same camera if one comes before it is fetched."""
        camera = slot.frame.camera
        with self._change:
            self._ready = slot
            self._taking = False
            self._change.notify_all()
            while self._ready is slot and not self._stop.is_set():
                self._change.wait(0.25)
                if self._ready is slot and not self._every_frame and camera.fresh():
                    self._taking = True
                    frame = camera.take()
                    if frame is not None:
                        self._ready = None
                        return frame
                    self._taking = False
        return None

    # -- stage 2 ------------------------------------------------------------------------------------------------

    def _infer(self) -> None:
        run = 0
        under_way: Deque[_Slot] = deque()
        while under_way or not self._stop.is_set():
            most = 2 if self._every_frame and self.active.detector.ahead and run < _AHEAD_RUN else 1
            slot = self._fetch(under_way) if len(under_way) < most and not self._stop.is_set() else None
            if slot is not None and self._attempt(self._submit, slot):
                run += 1
                under_way.append(slot)
                if len(under_way) < most:
                    continue
            if under_way:
                done = under_way.popleft()
                if self._attempt(self._collect, done):
                    self.beat = time.monotonic()
                    self._failures = 0
                    self._close_retired(done.active.generation)
                    self._done.put(done)
            if not under_way:
                run = 0
        self._done.put(None)

    def _attempt(self, step: Callable[[_Slot], None], slot: _Slot) -> bool:
        """Whether the step succeeded. Whatever a runtime throws: this frame is lost, the service is not."""
        try:
            step(slot)
        except Exception as error:
            self._failures += 1
            self._trouble(error, slot.active, self._failures)
            slot.drop()
            self._free.put(slot)
            return False
        return True

    def _submit(self, slot: _Slot) -> None:
        slot.times[2] = time.monotonic()
        slot.active.detector.submit(slot.blob)

    def _collect(self, slot: _Slot) -> None:
        outputs = slot.active.detector.collect()
        # A frame that was given ahead begins when the one before it has ended.
        slot.times[2], slot.times[3] = max(slot.times[2], self._infer_ended), time.monotonic()
        self._infer_ended = slot.times[3]
        for name, value in outputs.items():
            # The engine reuses its output buffers with the next call, which begins before this frame ends.
            kept = slot.outputs.get(name)
            if kept is None or kept.shape != value.shape:
                kept = slot.outputs[name] = np.empty(value.shape, value.dtype)
            np.copyto(kept, value)

    def _fetch(self, under_way: Deque[_Slot]) -> Optional[_Slot]:
        """The slot that is laid out; waits for one when nothing is under way."""
        used = False
        if self.spare is not None and not under_way:
            try:
                used = self.spare(self._ready is None)
            except Exception as error:  # the measurement beside the work must not end the work
                self.engine_error = f"trade-off sampling: {type(error).__name__}: {error}"
        with self._change:
            if self._ready is None and not used and not under_way:
                self._change.wait(0.25)
            slot, self._ready = self._ready, None
            if slot is not None:
                self._change.notify_all()
        if slot is None and not under_way:
            self.beat = time.monotonic()
        return slot

    def _trouble(self, error: Exception, active: Active, failures: int) -> None:
        self.engine_errors += 1
        self.last_error = time.monotonic()
        self.engine_error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if failures % _ERRORS_BEFORE_REOPEN or self._reopen is None or active is not self.active:
            return  # not the time yet, or another engine has its place already
        self._stop.wait(min(5.0, 0.2 * failures))
        try:
            detector = self._reopen(active.variant)
        except Exception as again:
            self.engine_error += f"; opening it again: {again}"
            return
        self.swap(active.variant, detector)

    def _close_retired(self, generation: int) -> None:
        while self._retired and self._retired[0].generation < generation:
            active = self._retired.pop(0)
            if active.own:
                active.detector.close()

    # -- stage 3 ------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        while True:
            slot = self._done.get()
            if slot is None:
                return
            try:
                self._publish(slot)
            except Exception as error:  # a fault in showing one frame must not end the loop
                self._note("finishing a frame", error)
            finally:
                slot.drop()
                self._free.put(slot)

    def _publish(self, slot: _Slot) -> None:
        frame, view = slot.frame, self.views[slot.frame.camera.index]
        began = time.monotonic()
        # Unsure faces keep tracks alive, so they are decoded too; they are not shown or counted by themselves.
        faces = slot.active.detector.finish(slot.outputs, frame.wh, slot.scale, min(self.score, tracker.LOW_SCORE))
        with view.tracking:
            events = view.tracker.update(faces.xyxy, faces.scores, frame.arrived)
            tracks = view.tracker.visible(frame.arrived)
        done = time.monotonic()
        prepare_begin, prepare_end, infer_begin, infer_end = slot.times
        ms = {
            "wait": (prepare_begin - frame.arrived) * 1e3,
            "preprocess": (prepare_end - prepare_begin) * 1e3,
            "queue": (infer_begin - prepare_end + began - infer_end) * 1e3,
            "infer": (infer_end - infer_begin) * 1e3,
            "postprocess": (done - began) * 1e3,
            "total": (done - frame.arrived) * 1e3,
        }
        for stage, value in ms.items():
            self.histograms[stage].add(value)
        result = Result(
            view.camera.index, frame.number, frame.arrived, done, frame.wh, faces, tracks, events, frame.extra, ms
        )
        view.latest = result
        view.results += 1
        self.results += 1
        self.last_result = done
        view.camera.waiting_since = None
        view.rate.add(done)
        self.rate.add(done)
        self._on_result(view, frame, result)
