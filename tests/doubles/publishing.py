"""A publisher of events in the test's own process."""

import json
import os

from serving import wait_for

from jetson.mqtt import publisher
from jetson.mqtt import settings as mqtt_settings


def settings(folder, url, **values):
    path = os.path.join(str(folder), "mqtt.json")
    with open(path, "w") as file:
        json.dump(dict({"node": "nano", "spool": "spool"}, **values), file)
    os.chmod(path, 0o600)
    return mqtt_settings.read(url, path)


class Publisher:
    """A publisher in this process, and the numbered events that it is given."""

    def __init__(self, settings, cameras=1):
        self.said = []
        self.mqtt = publisher.Mqtt(settings, self.said.append)
        self.mqtt.start([{"lines": [], "zones": []}] * cameras, "Nano")

    def offer(self, count):
        for _ in range(count):
            self.mqtt.event({"kind": "enter", "camera": 0, "source": "csi://0", "label": "with_mask"})

    def wait(self, connected=True):
        wait_for(lambda: self.mqtt.connected == connected, f"connected: {connected}")
        return self

    def wait_written(self):
        wait_for(lambda: not self.mqtt.spool._pending and not self.mqtt.spool._batch, "events on disk")

    def dropped(self):
        return self.mqtt.state()["dropped"]


def numbers(events):
    """Their numbers in order of arrival; an event that was sent again after a broken connection counts once."""
    seen, order = set(), []
    for event in events:
        if (event["boot"], event["seq"]) not in seen:
            seen.add((event["boot"], event["seq"]))
            order.append(event["seq"])
    return order
