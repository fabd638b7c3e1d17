"""What Home Assistant is told, so that the cameras appear there by themselves (its "MQTT discovery").

One retained message for each entity, <discovery prefix>/<component>/<device>/<object>/config, which every version since
2023.8 understands. Keys as in its documentation of the MQTT sensor, binary sensor and event.
"""

import json
import re
import zlib
from typing import Any, Dict, Iterable, List, NamedTuple, Sequence, Tuple

from jetson import __version__
from jetson.bundle.manifest import CLASSES

# What a journal may tell of (jetson.tracking.tracker, jetson.tracking.zones, jetson.serve.live). Home Assistant refuses
# an event whose type was not announced, so that further ones are announced when they first come up.
EVENT_TYPES = (
    "enter",
    "change",
    "leave",
    "camera lost",
    "camera back",
    "camera drifted",
    "camera as before",
    "clock stepped",
    "crossed",
    "zone entered",
    "zone left",
    "switched",
    "reloaded",
    "reload refused",
)

# The names of a camera's lines and polygons: {"lines": […], "zones": […]} (jetson.tracking.zones), and "name", its own,
# where it has one.
Places = Dict[str, Any]


def configs(
    node: str,
    device: str,
    base: str,
    discovery: str,
    cameras: List[Places],
    model: str,
    event_types: Iterable[str],
    classes: Sequence[str] = CLASSES,
) -> Dict[str, bytes]:
    """Topic -> payload of every entity. `base`: the device's own topics begin with it; `cameras`: what each counts."""
    owner = {
        "identifiers": [device],
        "name": node,
        "manufacturer": "jetmask",
        "model": model or "runner",
        "sw_version": __version__,
    }
    found: Dict[str, bytes] = {}
    entities = _device(base, sorted(set(event_types)))
    for number, places in enumerate(cameras):
        topic = f"{base}/camera/{segment(places.get('name', ''), number)}"
        entities += _camera(topic, Called.of(places.get("name", ""), number), classes)
        entities += _places(topic, Called.of(places.get("name", ""), number), places)
    for component, name, keys in entities:
        config = dict(
            keys,
            unique_id=f"{device}_{name}",
            availability_topic=base + "/status",
            payload_available="online",
            payload_not_available="offline",
            device=owner,
            origin={"name": "jetmask", "sw_version": __version__},
        )
        found[f"{discovery}/{component}/{device}/{name}/config"] = json.dumps(config).encode()
    return found


def segment(name: str, number: int) -> str:
    """A camera's part of a topic: its name, or its position where it has none; "+" and "#" mean something there.

    >>> segment("front door", 0), segment("", 3)
    ('front door', '3')
    """
    return (_word(name) if re.search(r"[+#$\x00-\x1f]", name) else name) if name else str(number)


class Called(NamedTuple):
    """How a camera is called: `id`: the beginning of its entities' ids; `title`: for people."""

    id: str
    title: str

    @classmethod
    def of(cls, name: str, number: int) -> "Called":
        """By its name, so that its history is its own wherever it stands; by position where it has none."""
        if not name:
            return cls(f"camera{number}_", f"Camera {number}")
        # Two underlines end the name, so that of no two cameras and kinds the ids are the same.
        plain = re.match(r"^[A-Za-z0-9]+([_-][A-Za-z0-9]+)*$", name)
        parts = re.findall(r"[A-Za-z0-9]+", name) + [f"{zlib.crc32(name.encode()):08x}"]
        word = name if plain else "_".join(parts)
        return cls(f"camera_{word}__", name)


def _device(base: str, event_types: List[str]) -> List[Tuple[str, str, Dict[str, Any]]]:
    topic = base + "/state"
    return [
        (
            "event",
            "events",
            {
                "name": "Events",
                "state_topic": base + "/event",
                "event_types": event_types,
                "icon": "mdi:account-eye",
                "qos": 1,
            },
        ),
        (
            "binary_sensor",
            "problem",
            {
                "name": "Problem",
                "state_topic": topic,
                "device_class": "problem",
                "value_template": "{{ 'OFF' if value_json.status == 'ok' else 'ON' }}",
                "entity_category": "diagnostic",
                "json_attributes_topic": topic,
            },
        ),
        (
            "binary_sensor",
            "throttled",
            {
                "name": "Throttled",
                "state_topic": topic,
                "device_class": "problem",
                "value_template": "{{ 'ON' if value_json.throttled else 'OFF' }}",
                "entity_category": "diagnostic",
            },
        ),
        (
            "sensor",
            "results",
            {
                "name": "Results a second",
                "state_topic": topic,
                "state_class": "measurement",
                "value_template": "{{ value_json.fps }}",
                "unit_of_measurement": "frames/s",
                "entity_category": "diagnostic",
            },
        ),
        (
            "sensor",
            "temperature",
            {
                "name": "Temperature",
                "state_topic": topic,
                "device_class": "temperature",
                "unit_of_measurement": "°C",
                "state_class": "measurement",
                "value_template": "{{ value_json.temperature_c }}",
                "entity_category": "diagnostic",
            },
        ),
        (
            "sensor",
            "variant",
            {
                "name": "Variant",
                "state_topic": topic,
                "value_template": "{{ value_json.variant }}",
                "entity_category": "diagnostic",
            },
        ),
        (
            "sensor",
            "dropped",
            {
                "name": "Dropped events",
                "state_topic": topic,
                "state_class": "total_increasing",
                "value_template": "{{ value_json.events_dropped }}",
                "entity_category": "diagnostic",
            },
        ),
    ]


def _camera(topic: str, called: Called, classes: Sequence[str]) -> List[Tuple[str, str, Dict[str, Any]]]:
    entities = [
        (
            "binary_sensor",
            called.id.rstrip("_"),
            {
                "name": called.title,
                "state_topic": topic,
                "device_class": "connectivity",
                "value_template": "{{ 'ON' if value_json.status == 'live' else 'OFF' }}",
                "json_attributes_topic": topic,
            },
        ),
        (
            "sensor",
            f"{called.id}persons",
            {
                # Never falls but by a new start, which total_increasing takes for a new cycle.
                "name": f"{called.title} persons",
                "state_topic": topic,
                "state_class": "total_increasing",
                "value_template": "{{ value_json.persons.total }}",
                "icon": "mdi:counter",
            },
        ),
    ]
    icon = "mdi:face-mask" if tuple(classes) == CLASSES else "mdi:tag-outline"
    for label in classes:
        words, word = label.replace("_", " "), _word(label)
        # Of any other name, which may be no word or one of a dictionary's own ("items"), a text in the template.
        key = "." + label if label in CLASSES else f"[{json.dumps(label, ensure_ascii=False)}]"
        entities.append(
            (
                "sensor",
                f"{called.id}{word}",
                {
                    "name": f"{called.title} {words}, now",
                    "state_topic": topic,
                    "state_class": "measurement",
                    "value_template": f"{{{{ value_json.now{key} }}}}",
                    "icon": icon,
                },
            )
        )
        # May fall by one, when the vote about a person changes: so a total with its start, not total_increasing.
        entities.append(
            (
                "sensor",
                f"{called.id}persons_{word}",
                {
                    "name": f"{called.title} {words}, persons",
                    "state_topic": topic,
                    "state_class": "total",
                    "value_template": f"{{{{ value_json.persons{key} }}}}",
                    "icon": "mdi:counter",
                    "last_reset_value_template": "{{ value_json.since }}",
                },
            )
        )
    return entities


def _places(topic: str, called: Called, places: Places) -> List[Tuple[str, str, Dict[str, Any]]]:
    # Known and read by name: their order in the file may change, and their counts go on under their names.
    pick = "(value_json.{} | selectattr('name', 'eq', '{}') | first)"
    entities: List[Tuple[str, str, Dict[str, Any]]] = []
    for name in places["lines"]:
        for way in ("in", "out"):
            entities.append(
                (
                    "sensor",
                    f"{called.id}line_{_word(name)}_{way}",
                    {
                        "name": f"{called.title} {name} {way}",
                        "state_topic": topic,
                        "icon": "mdi:door",
                        "value_template": f"{{{{ {pick.format('lines', name)}['{way}'].total }}}}",
                        "state_class": "total_increasing",
                    },
                )
            )
    for name in places["zones"]:
        entities.append(
            (
                "sensor",
                f"{called.id}zone_{_word(name)}",
                {
                    "name": f"{called.title} {name}, now",
                    "state_topic": topic,
                    "state_class": "measurement",
                    "value_template": f"{{{{ {pick.format('zones', name)}.now.total }}}}",
                    "icon": "mdi:account-group",
                },
            )
        )
    return entities


def _word(name: str) -> str:
    """A name of a class, line or polygon as a part of a topic and an id: ASCII letters, digits, _ and - alone."""
    word = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return word if word == name else f"{word}_{zlib.crc32(name.encode()):08x}"
