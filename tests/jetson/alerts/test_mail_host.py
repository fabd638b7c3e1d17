"""Mail to a real SMTP server on loopback: one that refuses at first, and what the message says."""

import email
import json

import pytest
from broker import free_port
from serving import wait_for

from jetson.alerts import settings
from jetson.alerts.alerts import Alerts
from jetson.bundle.classes import MASK_CLASSES
from jetson.errors import BadInput
from jetson.monitor.journal import stamp

controller = pytest.importorskip("aiosmtpd.controller")


class Box:
    """Takes mail; refuses the first `refuse` messages for now."""

    def __init__(self, refuse=0):
        self.got, self.refuse = [], refuse

    async def handle_DATA(self, server, session, envelope):
        if self.refuse:
            self.refuse -= 1
            return "451 try again later"
        self.got.append(email.message_from_bytes(envelope.content))
        return "250 OK"


def test_mail_is_sent_again_until_it_is_taken(tmp_path):
    box = Box(refuse=2)
    server = controller.Controller(box, hostname="127.0.0.1", port=free_port())
    server.start()
    mail = {"kind": "email", "host": "127.0.0.1", "port": server.port, "tls": "off", "from": "nano@example.org",
            "to": ["a@example.org", "b@example.org"]}  # fmt: skip
    data = {"rules": [{"name": "lost", "when": "camera lost > 1 s"}], "receivers": {"mail": mail}, "retry": 0.05}
    alerts = Alerts(settings.alerts_of(data), MASK_CLASSES, str(tmp_path / "a"), [].append).start()
    try:
        alerts.event({"kind": "camera lost", "at": stamp(0), "camera": "gate", "reason": "no route"})
        wait_for(lambda: box.got, "a mail")
        assert "lost" in box.got[0]["Subject"] and box.got[0]["To"] == "a@example.org, b@example.org"
        text = box.got[0].get_payload()
        assert "gate: no picture" in text and "reason: no route" in text
        wait_for(lambda: alerts.state()["receivers"][0]["waiting"] == 0, "nothing waits")
        assert len(box.got) == 1
    finally:
        alerts.stop()
        server.stop()


@pytest.mark.parametrize(
    "change, key",
    [
        ({"host": "mail.example.org"}, "tls"),
        ({"to": "a@example.org, b"}, "to"),
        ({"username": "me"}, "mail"),
        ({"password": "Geheim71", "username": "me"}, "password"),
    ],
)
def test_settings_that_would_leak_or_never_arrive(change, key):
    mail = {"kind": "email", "host": "127.0.0.1", "tls": "off", "from": "a@example.org", "to": "b@example.org"}
    with pytest.raises(BadInput) as told:
        settings.alerts_of({"receivers": {"mail": dict(mail, **change)}})
    assert told.value.where.endswith(key) and "Geheim71" not in json.dumps(str(told.value))
