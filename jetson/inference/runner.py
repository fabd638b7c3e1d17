"""The way of a frame, from its camera to what is told of it: three overlapped stages and no queue that could grow.

    stage 1  _take      the newest frame of the next camera          jetson.capture.camera
             _fill      letterboxed into an input buffer             jetson.vision.letterbox
    stage 2  _submit    the engine computes                          jetson.engine
             _collect   the cells that may be faces are kept         jetson.vision.boxes
    stage 3  _publish   boxes from the outputs                       jetson.inference.detector, jetson.vision.boxes
                        persons from the boxes                       jetson.tracking.tracker
                        lines crossed, zones entered                 jetson.tracking.zones
                        Sink.result, Sink.happened: page, journal    jetson.serve.results

A stage runs in a thread of its own, so that the engine is busy all the time. A frame that waits for the engine is
replaced by a newer one of its camera; of a source that is read once none is. Only where every frame counts, and the
engine is a process of its own, is the next frame given to it ahead of its turn. Where the engine would only wait (a
camera that is slower than it), its thread does the other stages itself: to wake another one costs more than that.

What is said about persons goes by the scene's time (`Frame.at`), what is said about this machine by the clock.
"""

import itertools
import queue
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np

from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.capture import source
from jetson.capture.camera import Camera, Frame
from jetson.inference.detector import Detector, Faces
from jetson.inference.histogram import Histogram, Rate
from jetson.tracking import tracker
from jetson.tracking.zones import Counter, ZoneEvent
from jetson.vision import boxes, letterbox

STAGES = ("wait", "preprocess", "queue", "infer", "postprocess", "total")
_SLOTS = 4  # preparing, finishing, and up to two under way in the engine
_AHEAD_RUN = 8  # inferences in a row with the next one given ahead, before the trade-off is asked whether it is due
_ERRORS_BEFORE_REOPEN = 3


class Active(NamedTuple):
    """The variant that runs now; `own`: the runner closes its detector when it goes."""

    variant: Any
    detector: Detector
    generation: int
    own: bool


class Result(NamedTuple):
    """What was seen in one frame. `arrived`, `done`: time.monotonic() seconds; `at`: the scene's time (Frame.at)."""

    camera: int
    number: int
    arrived: float
    at: float
    done: float
    frame_wh: Tuple[int, int]
    faces: Faces
    tracks: List[tracker.Track]
    events: List[tracker.Event]
    passed: List[ZoneEvent]
    extra: Dict[str, Any]
    ms: Dict[str, float]
    active: Active  # what found the faces


class View:
    """One camera with its tracker, its lines and zones, and its newest result.

    `name`: what its owner calls it, "" where he does not; `position`: among all cameras now, from 0 on. The camera's
    own `index` is its number within this process, and stays when others come and go. `score`: from which a face is one
    here, where that is not the bundle's.
    """

    def __init__(
        self,
        camera: Camera,
        score: float,
        zones: Counter,
        classes: Classes = MASK_CLASSES,
        own_score: Optional[float] = None,
    ) -> None:
        self.camera = camera
        self.name = camera.source.name
        self.position = camera.index
        self.own_score = own_score
        score = score if own_score is None else own_score
        self.classes = classes
        self.tracker = tracker.Tracker(score, len(classes.names), classes.ignored())
        self.zones = zones
        self.latest: Optional[Result] = None
        self.results = 0
        self.rate = Rate()
        self.tracking = threading.Lock()  # held while tracker and zones change
        self.turn = 0  # the pass of a file that the tracks are of
        self.origin: Optional[float] = None  # the scene's time at the beginning of that pass; None of a camera
        self.over = False  # the source has ended, and whoever was there has left
        self.gone = False  # no longer watched

    @property
    def key(self) -> Union[int, str]:
        """How events call it: by its name, or, where it has none, by its position."""
        return self.name or self.position

    @property
    def title(self) -> str:
        """How messages call it."""
        return self.name or f"camera {self.position}"


class Sink:
    """Where results go: the page, the journal, a test. Both are called in the finishing thread."""

    def result(self, view: View, frame: Frame, result: Result) -> None:
        """A frame is through; `frame` is valid until this returns."""

    def happened(self, view: View, events: Sequence[tracker.Event], passed: Sequence[ZoneEvent]) -> None:
        """Persons entered, changed or left; lines were crossed. Before `result`, and at the end of a source."""


class _Slot:
    """An input buffer on its way through the stages, with the frame it was made from."""

    def __init__(self) -> None:
        self.blob: Optional[np.ndarray] = None
        self.filled: Optional[Tuple[int, int]] = None  # the size that the last frame got in it
        self.picked: Optional[boxes.Cells] = None
        self.score = 0.0  # over which it was picked
        self.frame: Optional[Frame] = None
        self.active: Optional[Active] = None
        self.scale = (1.0, 1.0)
        self.part_wh = (0, 0)  # of the part of the frame that it was made from
        self.times = [0.0] * 4  # prepare begins, prepare ends, infer begins, infer ends

    def work(self) -> Tuple[Frame, Active, np.ndarray]:
        """What it holds between `_fill` and `drop`."""
        assert self.frame is not None and self.active is not None and self.blob is not None
        return self.frame, self.active, self.blob

    def drop(self, lost: bool = False) -> None:
        """Release the frame; `lost`: it gets no result, which is counted."""
        frame, self.frame = self.frame, None
        if frame is not None and lost:
            frame.camera.drop(frame)
        elif frame is not None:
            frame.release()


class Runner:
    """Runs a detector on cameras until `stop()`.

    `zones`: a counter for each source. `spare(idle)` is called in the inferring thread between two inferences; it
    returns whether it used the time (the live trade-off). `reopen(variant)` opens an engine that has failed anew.
    """

    def __init__(
        self,
        sources: List[source.Source],
        variant: Any,
        detector: Detector,
        score: Optional[float] = None,
        every_frame: bool = False,
        sink: Optional[Sink] = None,
        spare: Optional[Callable[[bool], bool]] = None,
        reopen: Optional[Callable[[Any], Detector]] = None,
        zones: Optional[Sequence[Counter]] = None,
        classes: Classes = MASK_CLASSES,
        scores: Optional[Sequence[Optional[float]]] = None,
    ) -> None:
        self.score = detector.decode["score"] if score is None else score
        self._score_of_bundle = score is None
        lock = self._lock = threading.Lock()
        # One lock, and a condition for each thread that waits: a frame from a camera wakes nobody but stage 1.
        self._change = threading.Condition(lock)  # a new frame, or the one that was laid out is fetched
        self._laid_out = threading.Condition(lock)
        self.views = [
            View(
                Camera(where, index, self._wake, every_frame),
                self.score,
                zones[index] if zones is not None else Counter([], classes.names),
                classes,
                scores[index] if scores is not None else None,
            )
            for index, where in enumerate(sources)
        ]
        self._classes = classes
        self._all_frames = every_frame
        self._numbers = itertools.count(len(self.views))
        self._running = False
        self.active = Active(variant, detector, 0, True)
        self.histograms = {stage: Histogram() for stage in STAGES}
        self.rate = Rate()
        self.results = 0
        self.engine_errors = 0
        self.engine_error = ""
        self.last_error = 0.0  # monotonic
        self.started = time.monotonic()
        self.beat = self.last_result = self.started
        self._sink = sink or Sink()
        self.spare = spare
        self._reopen = reopen
        self._every_frame = any(view.camera.every_frame for view in self.views)
        self._next = 0
        self._slots = [_Slot() for _ in range(_SLOTS)]
        self._free: Deque[_Slot] = deque(self._slots)  # the last one is still in the processor's cache
        self._starved = False  # stage 1 waits for one of them
        self._ready: Optional[_Slot] = None
        self._idle = False  # it waits for a frame
        self._preparing = False  # stage 1 has a frame, until it is fetched
        self._given = self._finished = 0  # slots to stage 3, and through it
        self._infer_ended = 0.0
        self._failures = 0
        self._done: Any = queue.Queue(maxsize=_SLOTS)  # of _Slot, and None at the end
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
        self._running = True
        for view in self.views:
            view.camera.start()
        for thread in self._threads:
            thread.start()
        return self

    # -- cameras that come and go; from one thread, while the others go on ---------------------------------------

    def make(self, where: source.Source, zones: Counter, score: Optional[float] = None) -> View:
        """A view of one more camera, to be added."""
        camera = Camera(where, next(self._numbers), self._wake, self._all_frames)
        return View(camera, self.score, zones, self._classes, score)

    def add(self, view: View) -> None:
        """Watch one more camera, the last of them."""
        self.arrange(self.views + [view])
        if self._running:
            view.camera.start()

    def remove(self, view: View) -> None:
        """Watch a camera no longer; whoever is in its picture leaves."""
        self.arrange([other for other in self.views if other is not view])
        view.camera.stop()
        self._leave(view, gone=True)

    @property
    def _alone(self) -> bool:
        """Whether the inferring thread may do all by itself."""
        return not self._every_frame

    def restart(self, view: View, where: source.Source) -> None:
        """Read a camera from elsewhere, or in another way; its counts go on, its tracks do not."""
        old = view.camera
        old.stop()
        self._leave(view)
        camera = Camera(where, old.index, self._wake, self._all_frames)
        with self._change:
            view.camera, view.latest, view.turn, view.origin, view.over = camera, None, 0, None, False
            self._every_frame = any(each.camera.every_frame for each in self.views)
        if self._running:
            camera.start()

    def arrange(self, views: Sequence[View]) -> None:
        """These are the cameras, in this order."""
        with self._change:
            self.views = list(views)
            for position, view in enumerate(self.views):
                view.position = position
            self._every_frame = any(view.camera.every_frame for view in self.views)
            self._change.notify_all()

    def set_score(self, view: View, score: Optional[float]) -> None:
        """From which score a face is one in this camera's picture; None: as in all."""
        view.own_score = score
        view.tracker.score = self.score if score is None else score

    def view_of(self, camera: Camera) -> Optional[View]:
        """The view of a camera; None where it is watched no longer."""
        return next((view for view in self.views if view.camera is camera), None)

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the cameras, let the frames in flight finish, close the engine."""
        for view in self.views:
            view.camera.ask_to_stop()  # all at once, then each is waited for
        self._stop.set()
        with self._change:
            self._change.notify_all()
            self._laid_out.notify_all()
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
        """Whether every source has come to its end, every frame of it is through and everybody has left."""
        return all(view.over for view in self.views)

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
                    self.set_score(view, view.own_score)

    def _wake(self) -> None:
        with self._lock:
            (self._laid_out if self._idle else self._change).notify_all()

    def _spare_slot(self) -> Optional[_Slot]:
        """A slot to prepare the next frame in; None when the runner stops."""
        with self._change:
            self._starved = True  # before it is looked: whoever gives one back looks afterwards
            while not self._free and not self._stop.is_set():
                self._change.wait(0.25)
            self._starved = False
            return self._free.pop() if self._free else None

    def _give_back(self, slot: _Slot, lost: bool = False) -> None:
        """The slot is empty again; `lost`: its frame got no result."""
        slot.drop(lost)
        self._free.append(slot)
        if self._starved:
            with self._change:
                self._change.notify_all()

    # -- stage 1 ------------------------------------------------------------------------------------------------

    def _take(self) -> Optional[Frame]:
        """The next frame, the cameras in turn; None when the runner stops."""
        with self._change:
            while not self._stop.is_set():
                frame = self._newest()
                if frame is not None:
                    self._preparing = True
                    return frame
                self._change.wait(1.0)
        return None

    def _newest(self) -> Optional[Frame]:
        """A frame that waits, the cameras in turn; the lock is held."""
        views = self.views
        for offset in range(len(views)):
            index = (self._next + offset) % len(views)
            camera = views[index].camera
            frame = camera.take() if camera.fresh() else None
            if frame is not None:
                self._next = index + 1
                return frame
        return None

    def _prepare(self) -> None:
        while not self._stop.is_set():
            slot = self._spare_slot()
            if slot is None:
                break
            frame = self._take()
            while frame is not None and self._filled(slot, frame):
                frame = self._offer(slot)
            self._preparing = False
        self._wake()

    def _filled(self, slot: _Slot, frame: Frame) -> bool:
        """`_fill`, and whether it went well: one odd frame must not end the loop."""
        try:
            self._fill(slot, frame)
        except Exception as error:
            self._note("preparing a frame", error)
            self._give_back(slot, lost=True)
            return False
        return True

    def _note(self, what: str, error: Exception) -> None:
        self.engine_errors += 1
        self.last_error = time.monotonic()
        self.engine_error = f"{what}: {type(error).__name__}: {error}"

    def _fill(self, slot: _Slot, frame: Frame) -> None:
        slot.drop()
        slot.frame = frame  # first, so that it is released whatever happens
        active = self.active
        if slot.active is not active:
            if slot.active is not None and slot.blob is not None:
                slot.active.detector.return_input(slot.blob)
            slot.active, slot.blob, slot.filled = active, active.detector.borrow_input(), None
        slot.times[0] = time.monotonic()
        part = frame.part
        slot.part_wh = (part.shape[1], part.shape[0])
        filled, slot.filled = slot.filled, None
        _, slot.scale = active.detector.prepare(part, slot.blob, filled)
        slot.filled = letterbox.fit(slot.part_wh, active.detector.input_wh)
        slot.times[1] = time.monotonic()

    def _offer(self, slot: _Slot) -> Optional[Frame]:
        """Lay the slot out for the engine; a newer frame of the same camera if one comes before it is fetched."""
        camera = slot.work()[0].camera
        with self._change:
            self._ready = slot
            self._laid_out.notify()
            while self._ready is slot and not self._stop.is_set():
                self._change.wait(0.25)
                if self._ready is slot and not camera.every_frame and camera.fresh():
                    frame = camera.take()
                    if frame is not None:
                        self._ready = None
                        camera.drop(slot.work()[0])
                        slot.frame = None
                        return frame
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
                    self._close_retired(done.work()[1].generation)
                    if self._alone and not under_way and self._ready is None and self._given == self._finished:
                        self._complete(done)
                    else:
                        self._given += 1
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
            self._trouble(error, slot.work()[1], self._failures)
            self._give_back(slot, lost=True)
            return False
        return True

    def _submit(self, slot: _Slot) -> None:
        _, active, blob = slot.work()
        slot.times[2] = time.monotonic()
        active.detector.submit(blob)

    def _collect(self, slot: _Slot) -> None:
        detector = slot.work()[1].detector
        outputs = detector.collect()
        # A frame that was given ahead begins when the one before it has ended.
        slot.times[2], slot.times[3] = max(slot.times[2], self._infer_ended), time.monotonic()
        self._infer_ended = slot.times[3]
        # The engine reuses its output buffers with the next call, which begins before this frame ends: what may be a
        # face is taken out now, which is less work than copying them. Unsure faces keep tracks alive, so they are
        # taken too; they are not shown or counted by themselves.
        slot.score = min([tracker.LOW_SCORE] + [view.tracker.score for view in self.views])
        slot.picked = detector.pick(outputs, slot.score)

    def _fetch(self, under_way: Deque[_Slot]) -> Optional[_Slot]:
        """The slot that is laid out, or one that is filled here; waits for a frame when nothing is under way."""
        used, frame = False, None
        if self.spare is not None and not under_way:
            try:
                used = self.spare(self._ready is None)
            except Exception as error:  # the measurement beside the work must not end the work
                self.engine_error = f"trade-off sampling: {type(error).__name__}: {error}"
        with self._change:
            if self._ready is None and not used and not under_way:
                self._idle = self._alone
                self._laid_out.wait(0.25)
                self._idle = False
            slot, self._ready = self._ready, None
            if slot is not None:
                self._change.notify_all()
            elif self._alone and not self._preparing and self._free:
                frame = self._newest()
                if frame is not None:
                    slot = self._free.pop()
        if frame is not None and slot is not None and not self._filled(slot, frame):
            slot = None
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
            try:
                # A camera has no end; that of a file is looked for.
                slot = self._done.get(timeout=0.1 if self._every_frame else 1.0)
            except queue.Empty:
                self._end_scenes()
                continue
            if slot is None:
                return
            self._complete(slot)
            self._finished += 1

    def _complete(self, slot: _Slot) -> None:
        before, lost = self.results, False
        try:
            self._publish(slot)
        except Exception as error:  # a fault in showing one frame must not end the loop
            self._note("finishing a frame", error)
            lost = self.results == before  # whoever shows a result may fail, too
        finally:
            self._give_back(slot, lost)

    def _publish(self, slot: _Slot) -> None:
        frame, active, _ = slot.work()
        view = self.view_of(frame.camera)
        if view is None:
            return  # of a camera that is watched no longer
        began = time.monotonic()
        assert slot.picked is not None
        faces = active.detector.finish_picked(slot.picked, slot.part_wh, slot.scale, slot.score)
        if frame.corner != (0, 0):
            faces = faces._replace(xyxy=faces.xyxy + np.array(frame.corner * 2, np.float32))
        if frame.turn != view.turn:  # the file has begun again
            self._leave(view)
            view.turn = frame.turn
        view.origin = None if frame.second is None else frame.at - frame.second
        prepare_begin, prepare_end, infer_begin, infer_end = slot.times
        with view.tracking:  # the newest result and the zones' numbers are of one frame for those who ask
            if view.gone or view.camera is not frame.camera:
                return
            events = view.tracker.update(faces.xyxy, faces.scores, frame.at)
            tracks = view.tracker.visible(frame.at)
            passed = view.zones.update(view.tracker.tracks, frame.wh, frame.at, tracks)
            done = time.monotonic()
            ms = {
                "wait": (prepare_begin - frame.arrived) * 1e3,
                "preprocess": (prepare_end - prepare_begin) * 1e3,
                "queue": (infer_begin - prepare_end + began - infer_end) * 1e3,
                "infer": (infer_end - infer_begin) * 1e3,
                "postprocess": (done - began) * 1e3,
                "total": (done - frame.arrived) * 1e3,
            }
            result = Result(
                view.camera.index,
                frame.number,
                frame.arrived,
                frame.at,
                done,
                frame.wh,
                faces,
                tracks,
                events,
                passed,
                frame.extra,
                ms,
                active,
            )
            view.latest = result
        for stage, value in ms.items():
            self.histograms[stage].add(value, done)
        view.results += 1
        self.results += 1
        self.last_result = done
        view.camera.waiting_since = None
        view.rate.add(done)
        self.rate.add(done)
        if events or passed:
            self._sink.happened(view, events, passed)
        self._sink.result(view, frame, result)

    def _leave(self, view: View, gone: bool = False) -> None:
        """The scene is over: whoever was there has left."""
        with view.tracking:
            view.gone = gone
            events, passed = view.tracker.finish(), view.zones.finish()
        if view.latest is not None:
            view.latest = view.latest._replace(tracks=[])
        if events or passed:
            self._sink.happened(view, events, passed)

    def _end_scenes(self) -> None:
        """Sources that have ended, and of which no frame is on its way any more."""
        for view in self.views:
            if view.camera.over and not view.over:
                try:
                    self._leave(view)
                except Exception as error:
                    self._note("closing a source", error)
                view.over = True
