"""The state in Prometheus' text format."""

from typing import Any, Dict, Iterator, Optional


class _Collector:
    def __init__(self, state: Dict[str, Any]) -> None:
        self._state = state

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge

        state = self._state

        def one(kind: Any, name: str, text: str, value: Optional[float]) -> Any:
            metric = kind("jetmask_" + name, text)
            if value is not None:
                metric.add_metric([], value)
            return metric

        info = Gauge("jetmask_info", "What runs.", labels=["version", "bundle", "variant", "runtime"])
        variant = state["variant"]
        info.add_metric([state["version"], state["bundle"], variant["name"], variant["runtime"]], 1)
        yield info
        yield one(Gauge, "healthy", "1 while the inference loop moves.", int(state["health"]["ok"]))
        yield one(Gauge, "uptime_seconds", "Since the runner started.", state["uptime_s"])
        yield one(
            Gauge,
            "resident_memory_bytes",
            "Resident memory of the runner's own process, without those of cameras and engines.",
            state["memory_bytes"],
        )
        yield one(Gauge, "results_per_second", "Frames with a result, all cameras, last seconds.", state["fps"])
        yield one(Counter, "results", "Frames with a result, all cameras.", state["results"])
        yield one(Counter, "engine_errors", "Inferences that failed.", state["engine_errors"])
        yield one(Counter, "reloads", "Bundles swapped in.", state["reloads"])
        yield one(Counter, "failed_reloads", "Bundles refused; the old one stayed in use.", state["failed_reloads"])
        file = state.get("events_file", {})
        yield one(Gauge, "events_waiting", "Events not yet written to the events file.", file.get("waiting", 0))
        yield one(
            Counter, "events_dropped", "Events that were never written to the events file.", file.get("dropped", 0)
        )
        latency = Gauge(
            "jetmask_latency_ms",
            "Latency from arrival to result by stage, last 30 to 60 s.",
            labels=["stage", "quantile"],
        )
        for stage, values in state["latency_ms"].items():
            for name, quantile in (("p50", "0.5"), ("p95", "0.95"), ("p99", "0.99")):
                if name in values:
                    latency.add_metric([stage, quantile], values[name])
        yield latency
        yield from self._cameras(Counter, Gauge)
        yield from self._others(Counter, Gauge)
        yield from self._mqtt(Counter, Gauge)
        yield from self._alerts(Counter, Gauge)
        yield from self._media(Counter, Gauge)

    def _cameras(self, Counter: Any, Gauge: Any) -> Iterator[Any]:
        labels = ["camera", "source"]
        gauges = (
            ("camera_up", "1 while frames arrive.", lambda c: int(c["status"] == "live")),
            ("camera_fps", "Frames that arrive per second.", lambda c: c["camera_fps"]),
            ("camera_results_per_second", "Frames with a result per second.", lambda c: c["result_fps"]),
            ("camera_frame_age_ms", "Age of the newest frame that has a result.", lambda c: c["frame_age_ms"]),
            ("camera_frozen", "1 while the picture does not change.", lambda c: int(c["frozen"])),
            ("camera_dark", "1 while the picture is black.", lambda c: int(c["dark"])),
        )
        counters = (
            ("camera_frames", "Frames that arrived.", lambda c: c["frames"]),
            ("camera_dropped_frames", "Frames replaced by a newer one.", lambda c: c["dropped"]),
            ("camera_restarts", "Restarts of the capture process.", lambda c: c["restarts"]),
            ("camera_lost", "Times the camera was lost.", lambda c: c["times_lost"]),
        )
        for kind, metrics in ((Gauge, gauges), (Counter, counters)):
            for name, text, get in metrics:
                metric = kind("jetmask_" + name, text, labels=labels)
                for camera in self._state["cameras"]:
                    if get(camera) is not None:
                        metric.add_metric([camera["name"], camera["source"]], get(camera))
                yield metric
        now = Gauge("jetmask_faces", "Faces in the picture now.", labels=["camera", "label"])
        # A gauge: a person whose voted class changes moves from one label to the other.
        persons = Gauge(
            "jetmask_persons", "Persons counted since the start, by voted class.", labels=["camera", "label"]
        )
        for camera in self._state["cameras"]:
            for label in self._state["classes"]:
                now.add_metric([camera["name"], label], camera["now"][label])
                persons.add_metric([camera["name"], label], camera["persons"][label])
        yield now
        yield persons
        alarms = Gauge("jetmask_alert_faces", "Faces of an alert class in the picture now.", labels=["camera"])
        alert = [label for label in self._state["classes"] if self._state["roles"][label] == "alert"]
        for camera in self._state["cameras"]:
            alarms.add_metric([camera["name"]], sum(camera["now"][label] for label in alert))
        yield alarms
        yield from self._drift(Gauge)
        yield from self._zones(Counter, Gauge)

    def _zones(self, Counter: Any, Gauge: Any) -> Iterator[Any]:
        crossed = Counter(
            "jetmask_line_crossings",
            "Persons who crossed a line, by direction and voted class.",
            labels=["camera", "line", "direction", "label"],
        )
        present = Gauge("jetmask_zone_persons", "Persons in a polygon now.", labels=["camera", "zone", "label"])
        entered = Counter(
            "jetmask_zone_entered",
            "Persons who were in a polygon, each once, by voted class then.",
            labels=["camera", "zone", "label"],
        )
        for camera in self._state["cameras"]:
            index = camera["name"]
            for label in self._state["classes"]:
                for line in camera.get("lines", ()):
                    for direction in ("in", "out"):
                        crossed.add_metric([index, line["name"], direction, label], line[direction][label])
                for zone in camera.get("zones", ()):
                    present.add_metric([index, zone["name"], label], zone["now"][label])
                    entered.add_metric([index, zone["name"], label], zone["entered"][label])
        yield crossed
        yield present
        yield entered

    def _drift(self, Gauge: Any) -> Iterator[Any]:
        for name, text, key in (
            ("drift", "How far the camera is from its first week; from 1 on it is more than usual.", "ratio"),
            ("drift_look", "1 when this camera should be checked: its picture differs from its first week.", "look"),
            ("drift_learned", "Share of the first week that has been learnt, 0 to 1.", "learned"),
        ):
            metric = Gauge("jetmask_" + name, text, labels=["camera"])
            for camera in self._state["cameras"]:
                if camera.get("drift") and camera["drift"][key] is not None:
                    metric.add_metric([camera["name"]], float(camera["drift"][key]))
            yield metric

    def _others(self, Counter: Any, Gauge: Any) -> Iterator[Any]:
        state = self._state
        if state["server"]:
            for name in ("connections", "streams"):
                metric = Gauge("jetmask_http_" + name, f"Open {name}.")
                metric.add_metric([], state["server"][name])
                yield metric
            for name in ("requests", "refused", "dropped"):
                metric = Counter("jetmask_http_" + name, f"HTTP {name}.")
                metric.add_metric([], state["server"][name])
                yield metric
        board = state["board"]
        if board:
            for key, name, text, unit in (
                ("power_mw", "power_mw", "Power of a rail in mW.", "rail"),
                ("temperature_c", "temperature_celsius", "Temperature.", "zone"),
            ):
                metric = Gauge("jetmask_board_" + name, text, labels=[unit])
                for label, value in sorted((board.get(key) or {}).items()):
                    metric.add_metric([label], value)
                yield metric
            metric = Gauge(
                "jetmask_board_throttled", "1 while the board throttles; absent where the board does not report it."
            )
            if board.get("throttled") is not None:
                metric.add_metric([], int(board["throttled"]))
            yield metric
        if state["governor"]:
            metric = Counter("jetmask_governor_switches", "Switches to another variant.")
            metric.add_metric([], state["governor"]["count"])
            yield metric
            for key, text in (
                ("limit", "The governor's limit of a goal."),
                ("value", "The board's reading for a goal."),
            ):
                metric = Gauge("jetmask_governor_" + key, text, labels=["goal"])
                for limit in state["governor"]["limits"]:
                    if limit[key] is not None:
                        metric.add_metric([limit["goal"]], limit[key])
                yield metric
        if state["tradeoff"]:
            for key, name, text in (
                ("agreement", "agreement", "Share of faces found like the reference (0..1)."),
                ("low", "agreement_low", "Lower 95 % bound of the agreement."),
                ("high", "agreement_high", "Upper 95 % bound of the agreement."),
                ("frames", "agreement_frames", "Frames that the agreement was measured on."),
                ("latency_p50_ms", "latency_ms", "Measured here, one frame, p50."),
            ):
                metric = Gauge("jetmask_variant_" + name, text, labels=["variant", "runtime"])
                for row in state["tradeoff"]["variants"]:
                    if row.get(key) is not None:
                        metric.add_metric([row["name"], row["runtime"]], row[key])
                yield metric

    def _mqtt(self, Counter: Any, Gauge: Any) -> Iterator[Any]:
        state = self._state["mqtt"]
        if not state:
            return
        for kind, name, text, value in (
            (Gauge, "connected", "1 while the broker is connected.", int(state["connected"])),
            (Gauge, "spooled_events", "Events that wait for the broker.", state["waiting"]),
            (Gauge, "spool_limit_events", "Events that may wait before the oldest is dropped.", state["max_records"]),
            (Gauge, "spool_bytes", "Size of the spool's files.", state["disk_bytes"]),
            (
                Counter,
                "published_events",
                "Events that the broker has acknowledged, over all runs.",
                state["published"],
            ),
            (Counter, "refused_messages", "Messages that the broker has refused.", state["refused"]),
        ):
            metric = kind("jetmask_mqtt_" + name, text)
            metric.add_metric([], value)
            yield metric
        dropped = Counter("jetmask_mqtt_dropped_events", "Events that were dropped, over all runs.", labels=["reason"])
        for reason, count in sorted(state["dropped"].items()):
            dropped.add_metric([reason], count)
        yield dropped

    def _alerts(self, Counter: Any, Gauge: Any) -> Iterator[Any]:
        state = self._state["alerts"]
        if not state:
            return
        told = Counter("jetmask_alerts", "Alerts since the start.")
        told.add_metric([], state["told"])
        yield told
        for kind, key, text in (
            (Gauge, "waiting", "Alerts that wait for a receiver."),
            (Counter, "sent", "Alerts that a receiver has taken, since the start."),
            (Counter, "dropped", "Alerts that a receiver will never get, over all runs."),
        ):
            metric = kind("jetmask_alerts_" + key, text, labels=["receiver"])
            for one in state["receivers"]:
                metric.add_metric([one["name"]], one[key])
            for name, count in sorted(state["gone"].items()) if key == "dropped" else ():
                metric.add_metric([name], count)
            yield metric
        lost = Counter("jetmask_alerts_lost", "Alerts that no disk took, since the start.")
        lost.add_metric([], state["lost"])
        yield lost

    def _media(self, Counter: Any, Gauge: Any) -> Iterator[Any]:
        state = self._state.get("media")
        if not state:
            return
        size = Gauge("jetmask_media_bytes", "Bytes of pictures and clips of events.")
        size.add_metric([], state["bytes"])
        yield size
        dropped = Counter("jetmask_media_dropped", "Pictures and clips that could not be kept, since the start.")
        dropped.add_metric([], state["dropped"])
        yield dropped


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(state: Dict[str, Any]) -> bytes:
    """The state (jetson.monitor.status) as a page for Prometheus to scrape. ImportError without prometheus_client."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(state))
    return generate_latest(registry)
