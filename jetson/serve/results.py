"""The end of a frame's way: what a finished result is used for. What comes before is in jetson.inference.runner."""

import functools
import time
from typing import Any, Callable, Optional, Sequence

from jetson.capture.camera import Frame
from jetson.inference.detector import Faces
from jetson.inference.runner import Result, Sink, View
from jetson.monitor import drift
from jetson.monitor.journal import Journal, from_track, unstamp
from jetson.serve.comparing import Comparing
from jetson.serve.recorder import Recorder
from jetson.tracking.tracker import Event
from jetson.tracking.zones import ZoneEvent
from jetson.web.picture import Studio, crop


class Results(Sink):
    """Every result of every camera passes here once."""

    def __init__(
        self,
        studio: Studio,
        comparing: Comparing,
        seen: Optional[drift.Drift],
        journal: Journal,
        recorder: Optional[Recorder] = None,
    ) -> None:
        self._recorder = recorder
        self._studio = studio
        self._comparing = comparing
        self._drift = seen
        self._journal = journal

    def happened(self, view: View, events: Sequence[Event], passed: Sequence[ZoneEvent]) -> None:
        """Into the journal, which tells the page and the broker of it."""
        record(self._journal, view, events, passed, recorder=self._recorder)

    def result(self, view: View, frame: Frame, result: Result) -> None:
        """A picture for those who watch, a sample for the comparison, a look for drift, a crop of each face."""
        self._studio.offer(view.camera.index, frame.image, result)
        self._comparing.offer(frame.part, view.camera.index)
        if self._drift is not None:
            self._look(self._drift, view, frame, result)
        if self._recorder is not None:
            self._recorder.offer(view, frame, result)
        if self._journal.crops_on and not self._studio.blurs(view.camera.index):
            self._crops(view, frame, result)

    def _look(self, seen: drift.Drift, view: View, frame: Frame, result: Result) -> None:
        # The comparison samples the reference's faces for drift; where there is none, these are the best there are.
        if seen.see(view.camera.index, frame.image) and self._comparing.alone:
            sure = result.faces.confidence >= view.tracker.score
            active = result.active
            seen.sample(
                drift.model_key(active.variant, active.detector.engine.runtime),
                view.camera.index,
                frame.part.shape[0],
                Faces(result.faces.xyxy[sure], result.faces.scores[sure]),
            )

    def _crops(self, view: View, frame: Frame, result: Result) -> None:
        for face in result.tracks:
            if face.confirmed and face.seen >= result.at:
                self._journal.keep_crop(
                    f"{view.key}-{face.number}",
                    face.confidence * (face.box[3] - face.box[1]),
                    functools.partial(crop, frame.image, face.xyxy),
                )


def record(
    journal: Journal,
    view: View,
    events: Sequence[Event],
    passed: Sequence[ZoneEvent],
    wall: Callable[[], float] = time.time,
    recorder: Optional[Recorder] = None,
) -> None:
    """Write what happened in a camera's scene into the journal, with the scene's times.

    `recorder`: keeps pictures of persons; each event of one names them.
    """
    camera, origin = view.camera, view.origin
    now, monotonic = wall(), time.monotonic()

    def told(kind: str, event: Any, **more: str) -> None:
        fields = from_track(event, view.key, camera.source.label, now, monotonic, view.classes)
        if recorder is not None:
            if kind == "enter":
                recorder.enter(camera.index, event.track, unstamp(fields["at"]))
            picture = recorder.key(camera.index, event.track)
            if picture is not None:
                fields["picture"] = picture
        in_file = {} if origin is None else {"second": round(event.at - origin, 3)}
        journal.add(kind, **dict(fields, **in_file, **more))

    for event in events:
        told(event.kind, event)
    for one in passed:
        told(one.kind, one, **one.place())
    for event in events:
        if event.kind == "leave" and recorder is not None:
            recorder.leave(camera.index, event.track)
