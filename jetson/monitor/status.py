"""The runner's state as one JSON object: the page, /api/state, /metrics and /healthz all tell this one truth."""

import os
import time
from typing import Any, Dict, List, Optional

from jetson import __version__
from jetson.bundle.manifest import Manifest
from jetson.inference.runner import STAGES, Runner, View
from jetson.monitor.journal import Journal, stamp
from jetson.tracking import tracker

STUCK_S = 20.0


def resident_bytes() -> int:
    """The process's resident memory (/proc/self/statm)."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _unanswered_s(camera: Any, last_result: float) -> float:
    """For how long frames have come from `camera` and no result of any. The time before it sent is not counted."""
    since = camera.waiting_since
    return camera.last_frame - max(since, last_result) if since is not None and camera.status == "live" else 0.0


class Notices:
    """What an operator should know until the next reload (a reload that was refused, a file that is not kept)."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, text: str) -> None:
        """One more."""
        self.text = (self.text + " " + text).strip()

    def clear(self) -> None:
        """None any more."""
        self.text = ""


class Status:
    """Puts the state together. What is not there (`board`, `mqtt`, …) is None in it.

    `comparing` has `tradeoff` and `governor` (jetson.serve.comparing), which a reload replaces.
    """

    def __init__(
        self,
        manifest: Manifest,
        runner: Runner,
        journal: Journal,
        board: Any = None,
        comparing: Any = None,
        server: Any = None,
        mqtt: Any = None,
        drift: Any = None,
        privacy: Optional[Dict[str, Any]] = None,
        notices: Optional[Notices] = None,
        alerts: Any = None,
        recorder: Any = None,
    ) -> None:
        self.manifest = manifest
        self.runner = runner
        self.journal = journal
        self.board = board
        self.comparing = comparing
        self.server = server
        self.mqtt = mqtt
        self.drift = drift
        self.alerts = alerts
        self.recorder = recorder
        self.privacy = privacy or {}
        self.notices = notices or Notices()
        self.reloads = self.failed_reloads = 0

    @property
    def tradeoff(self) -> Any:
        """The live trade-off of now, or None."""
        return self.comparing.tradeoff if self.comparing is not None else None

    @property
    def governor(self) -> Any:
        """The governor of now, or None."""
        return self.comparing.governor if self.comparing is not None else None

    def reloaded(self, manifest: Manifest) -> None:
        """Another bundle runs."""
        self.manifest = manifest
        self.reloads += 1

    def refused(self) -> None:
        """A new bundle was no use."""
        self.failed_reloads += 1

    def health(self) -> Dict[str, Any]:
        """{"ok", "status": ok | degraded | stuck, "reason", …}; not ok only when a restart would help."""
        now = time.monotonic()
        runner = self.runner
        silent = now - runner.beat
        # By number: /healthz is told without a token, and where the cameras are is nobody's business.
        lost = [f"camera {view.position}" for view in runner.views if view.camera.status == "lost"]
        unanswered = any(_unanswered_s(view.camera, runner.last_result) > STUCK_S for view in runner.views)
        reason = ""
        if silent > STUCK_S:
            reason = f"the inference loop has not moved for {silent:.0f} s"
        elif unanswered:
            reason = f"frames come in, but no result for {now - runner.last_result:.0f} s"
        status = "stuck" if reason else "degraded" if lost else "ok"
        if lost and not reason:
            reason = "no picture from " + ", ".join(lost)
        return {
            "ok": status != "stuck",
            "status": status,
            "reason": reason,
            "beat_age_s": round(silent, 3),
            "uptime_s": round(now - runner.started, 1),
        }

    def warnings(self) -> List[str]:
        """What an operator should look at, in words; empty when all is well."""
        found = []
        for view in self.runner.views:
            camera = view.camera
            name = camera.source.label if view.name else f"Camera {view.position} ({camera.source.label})"
            if camera.status == "lost":
                found.append(f"{name}: no picture. {camera.last_error}")
            elif camera.frozen:
                found.append(f"{name}: the picture does not change; the camera may be frozen.")
            elif camera.broken:
                found.append(f"{name}: {camera.broken}.")
            elif camera.slow_s:
                found.append(f"{name}: no picture for {camera.slow_s:.0f} s; the file is slow to read and waited for.")
            elif camera.dark:
                found.append(f"{name}: the picture is black (night, or a covered lens).")
        runner = self.runner
        # Not a fault of last week, where there is no result because no camera sends.
        if runner.last_error > runner.last_result and (runner.last_result < time.monotonic() - 2 or not runner.results):
            found.append(f"The engine fails: {runner.engine_error}")
        if self.journal.error:
            found.append(self.journal.error)
        if self.recorder is not None and self.recorder.media.error:
            found.append(self.recorder.media.error)
        if self.notices.text:
            found.append(self.notices.text)
        if self.board is not None:
            found += self.board.warnings()
        if self.mqtt is not None:
            found += self.mqtt.warnings()
        if self.alerts is not None:
            found += self.alerts.warnings()
        if self.drift is not None:
            found += self.drift.warnings()
        governor = self.governor  # a reload may take it away meanwhile
        if governor is not None:
            found += governor.warnings()
        return found

    def _camera(self, view: View, now: float) -> Dict[str, Any]:
        camera = view.camera
        names = self.manifest.classes
        with view.tracking:  # numbers of the picture and of its zones are of the same frame
            latest = view.latest
            # What was seen seconds ago is not what is there: counts are given only for a live picture.
            current = (
                latest is not None
                and camera.status in ("live", "ended")
                and (now - latest.done < 3.0 or camera.source.kind == "folder" or camera.status == "ended")
            )
            tracks = list(latest.tracks) if latest is not None and current else []
            totals, persons = list(view.tracker.counts), view.tracker.persons
            places = view.zones.state(current)
        return {
            "index": view.position,
            "key": camera.index,
            "name": view.name or str(view.position),
            "source": camera.source.label,
            "kind": camera.source.kind,
            "status": camera.status,
            "since": stamp(time.time() - now + camera.since),
            "frame_wh": list(camera.frame_wh) if camera.frame_wh else None,
            "camera_fps": round(camera.fps, 2),
            "result_fps": round(view.rate.value(now), 2),
            "frames": camera.frames,
            "results": view.results,
            "dropped": camera.dropped,
            "restarts": camera.restarts,
            "times_lost": camera.lost_count,
            "last_error": camera.last_error,
            "second": round(camera.second, 3) if not camera.source.live else None,
            "length_s": round(camera.length_s, 3) if camera.length_s else None,
            "ends_early": bool(camera.broken),
            "frozen": camera.frozen,
            "dark": camera.dark,
            "capture_pid": camera.pid,
            "frame_age_ms": round((now - latest.arrived) * 1e3, 1) if latest else None,
            "latency_ms": {stage: round(value, 3) for stage, value in latest.ms.items()} if latest else None,
            "faces": [dict(tracker.describe(face), label=names[face.label]) for face in tracks],
            "now": {name: tracker.count_of(tracks, label) for label, name in enumerate(names)},
            "persons": dict(zip(names, totals), total=persons),
            "drift": self.drift.state(camera.index) if self.drift is not None else None,
            **places,
        }

    def variant(self) -> Dict[str, Any]:
        """What runs now."""
        active = self.runner.active
        chosen = active.variant
        runtime = active.detector.engine.runtime
        return {
            "name": chosen.name,
            "model": chosen.model,
            "precision": chosen.precision,
            "runtime": runtime,
            "input_wh": list(chosen.input_wh),
            "macs": chosen.macs,
            "bytes": chosen.bytes,
            "ap": (chosen.ap or {}).get(runtime),
        }

    def state(self) -> Dict[str, Any]:
        """Everything, as JSON-ready values."""
        now = time.monotonic()
        runner, tradeoff, governor = self.runner, self.tradeoff, self.governor
        classes = self.manifest.class_list
        return {
            "product": "jetmask",
            "version": __version__,
            "bundle": self.manifest.name,
            "bundle_created": self.manifest.created,
            "time": stamp(time.time()),
            "uptime_s": round(now - runner.started, 1),
            "health": self.health(),
            "variant": self.variant(),
            "classes": list(classes.names),
            "roles": dict(zip(classes.names, classes.roles)),
            "words": dict(zip(classes.names, classes.words())),
            "score": runner.score,
            "fps": round(runner.rate.value(now), 2),
            "results": runner.results,
            "engine_errors": runner.engine_errors,
            "engine_error": runner.engine_error,
            "latency_ms": {stage: runner.histograms[stage].percentiles() for stage in STAGES},
            "cameras": [self._camera(view, now) for view in runner.views],
            "warnings": self.warnings(),
            "events": self.journal.latest(30),
            "events_file": self.journal.state(),
            "privacy": self.privacy,
            "memory_bytes": resident_bytes(),
            "reloads": self.reloads,
            "failed_reloads": self.failed_reloads,
            "board": self.board.state() if self.board is not None else None,
            "tradeoff": tradeoff.state() if tradeoff is not None else None,
            "governor": governor.state() if governor is not None else None,
            "server": self.server.counts() if self.server is not None else None,
            "mqtt": self.mqtt.state() if self.mqtt is not None else None,
            "alerts": self.alerts.state() if self.alerts is not None else None,
            "media": self.recorder.state() if self.recorder is not None else None,
        }
