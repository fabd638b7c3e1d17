"""What a running service consists of: every part, whole and started, for those who watch over it and replace parts."""

from typing import Callable, Dict, NamedTuple, Optional

from jetson.alerts.alerts import Alerts
from jetson.bundle.manifest import Variant
from jetson.inference.detector import Detector
from jetson.inference.runner import Runner
from jetson.monitor.drift import Drift
from jetson.monitor.journal import Journal
from jetson.monitor.status import Status
from jetson.monitor.watchdog import Notifier
from jetson.mqtt.publisher import Mqtt
from jetson.serve.comparing import Comparing
from jetson.serve.counts import Counts
from jetson.serve.recorder import Recorder
from jetson.serve.settings import Settings
from jetson.serve.watched import Watched
from jetson.web.access import Access
from jetson.web.picture import Studio
from jetson.web.site import Site


class Service(NamedTuple):
    """`open_variant(variant, runtime)` opens an engine of the bundle; `port`: where the page is."""

    settings: Settings
    runner: Runner
    comparing: Comparing
    journal: Journal
    status: Status
    studio: Studio
    site: Site
    guard: Access
    port: int
    notifier: Notifier
    mqtt: Optional[Mqtt]
    drift: Optional[Drift]
    alerts: Optional[Alerts]
    counts: Counts
    recorder: Optional[Recorder]
    watched: Dict[int, Watched]  # by the number of its camera; changed by a reload alone
    open_variant: Callable[[Variant, Optional[str]], Detector]
