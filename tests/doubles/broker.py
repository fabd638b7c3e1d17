"""A real mosquitto on a port of its own, that can be killed and started again; and a subscriber to it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time

from serving import wait_for
from stand_ins import Missing


def program(name):
    """The path of a program of mosquitto's; Missing where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing(f"no {name} (Debian: apt-get install mosquitto mosquitto-clients)")
    return found


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Broker:
    """mosquitto; what it keeps for a subscriber outlives it only as it was at `save`. `lines`: of its configuration."""

    def __init__(self, folder, *lines):
        self.port = free_port()
        self.path = os.path.join(str(folder), "mosquitto.conf")
        self.program = program("mosquitto")
        self.process = None
        with open(self.path, "w") as file:
            # Without a limit on what waits for a subscriber, so that a slow subscriber of a test loses nothing.
            file.write(
                "\n".join(
                    [
                        f"listener {self.port} 127.0.0.1",
                        "user root",
                        "max_queued_messages 0",
                        "persistence true",
                        f"persistence_location {folder}/",
                        "autosave_interval 0",
                    ]
                    + (list(lines) or ["allow_anonymous true"])
                )
                + "\n"
            )

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "-c", self.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self.answers, "mosquitto listens")
        return self

    def answers(self):
        assert self.process.poll() is None, "mosquitto has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def save(self):
        """Let it write down who has subscribed, so that after a kill it keeps messages for those who are not back."""
        path = os.path.join(os.path.dirname(self.path), "mosquitto.db")
        if os.path.exists(path):
            os.unlink(path)
        self.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: os.path.exists(path), "the broker has saved")

    def kill(self):
        """kill -9: connections break off."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    @property
    def url(self):
        return f"mqtt://127.0.0.1:{self.port}"


class Listener:
    """mosquitto_sub on everything, which connects again after each outage and misses nothing that the broker kept."""

    def __init__(self, broker, name="listener"):
        self.path = os.path.join(os.path.dirname(broker.path), name + ".log")
        self._at = 0
        self._messages = []
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(
                [
                    "stdbuf",
                    "-oL",
                    program("mosquitto_sub"),
                    "-p",
                    str(broker.port),
                    "-i",
                    name,
                    "-c",
                    "-q",
                    "1",
                    "-t",
                    "#",
                    "-d",
                    "-F",
                    "message %r %t %p",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(lambda: b"received SUBACK" in self._text(), "it has subscribed")
        except BaseException:
            self.close()
            raise

    def _text(self):
        with open(self.path, "rb") as file:
            return file.read()

    @property
    def messages(self):
        """[(topic, payload, retained)] of all that came until now."""
        with open(self.path, "rb") as file:
            file.seek(self._at)
            text = file.read()
        whole = text.rfind(b"\n") + 1
        self._at += whole
        for line in text[:whole].splitlines():
            if line.startswith(b"message "):
                _, retained, topic, payload = line.split(b" ", 3)
                self._messages.append((topic.decode(), payload, retained == b"1"))
        return self._messages

    def on(self, end):
        """The payloads, as text, on topics that end so."""
        return [payload.decode() for topic, payload, _ in self.messages if topic.endswith(end)]

    def events(self):
        return [json.loads(text) for text in self.on("/event")]

    def wait_events(self, count, patience_s=180.0):
        """Until so many events came; then a moment more, for those that should not come."""
        wait_for(
            lambda: sum(topic.endswith("/event") for topic, _, _ in self.messages) >= count,
            f"{count} events",
            patience_s,
        )
        time.sleep(0.5)
        return self.events()

    def close(self):
        self.process.kill()
        self.process.wait()
