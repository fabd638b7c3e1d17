"""Counts and events over MQTT, with Home Assistant's discovery; a broker that is away costs no event up to the limit.

Topics, under <prefix>/<node>:
    status        retained: online, or offline (also by the last will, when the connection breaks)
    event         QoS 1, each event of the journal as JSON; `seq` counts up by one over all restarts, `boot` is this
                  run: a step of more than one is what was dropped, or not yet written when the runner was killed;
                  a (boot, seq) seen before is a repetition
    camera/<name> retained, the newest counts of the camera of that name (of one without: its position); at most once
                  in `counts_every_s`, and only when something changed
    state         retained, the same for the whole device
An event passes through a spool on the disk (jetson.mqtt.spool) and leaves it when the broker has acknowledged it; what
the broker refuses stays there, and is told. The
inferring thread only appends to a list; connecting and publishing have a thread of their own, the disk another.
"""

import contextlib
import glob
import json
import os
import random
import secrets
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

from jetson import files
from jetson.bundle.manifest import CLASSES
from jetson.errors import DeviceMismatch, JetmaskError
from jetson.monitor.journal import stamp
from jetson.mqtt import homeassistant
from jetson.mqtt.session import FAREWELL_S, Session
from jetson.mqtt.settings import Settings
from jetson.mqtt.spool import Spool
from jetson.mqtt.standing import Standing

_LONGEST_WAIT_S = 15.0


def load_paho() -> Any:
    """The module paho.mqtt.client; DeviceMismatch where it is not installed."""
    try:
        import paho.mqtt.client as paho
    except ImportError as error:
        raise DeviceMismatch(
            "MQTT needs the Python package paho-mqtt, which is not installed",
            None,
            None,
            "python3 -m pip install 'paho-mqtt>=1.6,<3'",
        ) from error
    return paho


class Mqtt:
    """Publishes for one runner. `say`: writes a line to the log. JetmaskError when paho or the spool is not usable."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.paho = load_paho()
        self.settings = settings
        self.say = say
        self.boot = secrets.token_hex(4)
        self.since = stamp(time.time())
        self.spool = Spool(settings.spool, settings.spool_events, settings.spool_mb << 20)
        self._remembered = self.spool.folder + "/device.json"
        self._load_device()
        self.standing = Standing(settings.protocol)
        self.cameras: List[homeassistant.Places] = []
        self.model = ""
        self.classes: Sequence[str] = CLASSES
        self.newest: Optional[Dict[str, Any]] = None
        self.types = set(homeassistant.EVENT_TYPES)
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def _load_device(self) -> None:
        """The id under which brokers and Home Assistant know this device, made once; and what was announced."""
        self._network = _addresses()
        self._kept_network: List[str] = []
        try:
            kept = files.read_json(self._remembered)
            self.device, self.announced = str(kept["device"]), [str(topic) for topic in kept["announced"]]
            self._kept_network = [str(address) for address in kept.get("network", ())]
        except Exception:  # not there yet, or damaged
            self.device, self.announced = "jetmask_" + secrets.token_hex(6), []
        if self._kept_network and self._network and not set(self._kept_network) & set(self._network):
            # A copied card. With one id two devices would throw each other out of the broker, and be one for Home
            # Assistant; and what the other one has announced is not this one's to take back.
            self.device, self.announced = "jetmask_" + secrets.token_hex(6), []
            self.say(f"mqtt: the state folder is from another device (a copied card?); new device id: {self.device}")

    def start(self, cameras: List[homeassistant.Places], model: str = "", classes: Sequence[str] = CLASSES) -> "Mqtt":
        """Begin to connect. `cameras`: the names of each one's lines and zones; `model`: the board's."""
        self.cameras, self.model, self.classes = cameras, model, classes
        for note in self.settings.notes:
            self.say(note)
        self.spool.start()
        self._thread.start()
        return self

    # -- called by others; none of these waits ----------------------------------------------------------------------

    def event(self, event: Dict[str, Any]) -> None:
        """Publish an event of the journal, now or when the broker is back."""
        # event_type: the key that Home Assistant reads.
        body = dict(event, event_type=event["kind"], boot=self.boot, device=self.device)
        self.spool.offer(json.dumps(body).encode())

    def counts(self, state: Dict[str, Any]) -> None:
        """The newest state (jetson.monitor.status); what came before and is not sent yet is forgotten."""
        self.newest = state

    def state(self) -> Dict[str, Any]:
        """For the page, /api/state and /metrics: the spool's state, and {broker, connected, error, connects, node}."""
        return dict(
            self.spool.state(),
            broker=self.settings.broker,
            node=self.settings.node,
            boot=self.boot,
            connected=self.connected,
            error=self.error,
            connects=self.connects,
            version="5" if self.standing.version == 5 else "3.1.1",
            refused=self.standing.refused,
            problems=sorted(self.standing.problems.values()),
            spool_error=self.spool.error,
        )

    def warnings(self) -> List[str]:
        """What an operator should look at, in words."""
        found = []
        if not self.connected:
            found.append(f"MQTT: no connection to {self.settings.broker}: {self.error}")
        found += ["MQTT: " + text for text in sorted(self.standing.problems.values())] if self.connected else []
        if self.spool.error:
            found.append("MQTT: " + self.spool.error)
        return found

    @property
    def connected(self) -> bool:
        """Whether the broker has taken us in."""
        return self.standing.connected

    @property
    def error(self) -> str:
        """Why there is no connection; "" while there is one."""
        return self.standing.error

    @property
    def connects(self) -> int:
        """How often a connection came about."""
        return self.standing.connects

    def stopped(self) -> bool:
        """Whether the end has been asked for."""
        return self.stopping.is_set()

    def stop(self) -> None:
        """Send what can still be sent, say goodbye, close the spool."""
        self.stopping.set()
        if self._thread.is_alive():
            self._thread.join(FAREWELL_S + 0.5)
        self.spool.close()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wait, told, connects = 0.5, "", 0
        while not self.stopping.is_set():
            began = time.monotonic()
            session = Session(self)
            again = False
            try:
                session.run()
            except Exception as error:  # whatever happens to a connection: the next one is tried
                again = self.standing.has_failed(error, session.answered)
            self.standing.connected = False
            if self.stopping.is_set():
                return
            if again:
                continue
            if self.error != told or self.connects != connects:
                self.say(f"mqtt: {self.settings.broker}: {self.error}; events are kept meanwhile")
            told, connects = self.error, self.connects
            if time.monotonic() - began > 30.0:
                wait = 0.5
            # Spread, so that a broker that comes back is not met by all devices at once.
            self.stopping.wait(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, _LONGEST_WAIT_S)

    def remember(self, announced: List[str]) -> None:
        """Keep what was announced, so that it can be taken back when a camera is no longer there."""
        if announced == self.announced and self._network == self._kept_network and os.path.exists(self._remembered):
            return  # a broker that comes and goes must not wear out the flash
        self.announced, self._kept_network = announced, self._network
        try:
            files.write_json(
                self._remembered, {"device": self.device, "announced": announced, "network": self._network}
            )
        except (OSError, JetmaskError) as error:  # a full disk: events can be published all the same
            self.say(f"mqtt: cannot remember what was announced: {error}")


def _addresses(root: str = "/") -> List[str]:
    """The hardware addresses of this machine's own network devices; [] in a container with a network of its own.

    Only those that came with the device: a carrier board without a memory for one draws another at every start, and
    with a changed one a device would be another to brokers and Home Assistant after each.
    """
    found = set()
    # Bridges and the ends of containers have no device behind them.
    for device in glob.glob(os.path.join(root, "sys/class/net/*/device")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            kind, address = [
                _text(os.path.join(os.path.dirname(device), name)) for name in ("addr_assign_type", "address")
            ]
            if kind == "0":  # permanent; 1 is drawn, 2 taken from another device, 3 set by somebody
                found.add(address)
    return sorted(found - {"", "00:00:00:00:00:00"})


def _text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()
