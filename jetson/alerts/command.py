"""A program of the owner's: started for each alert, without a shell, with the alert as JSON on its standard input."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from typing import List

from jetson.alerts.fields import Fields
from jetson.alerts.receiver import Failed, Message, Receiver
from jetson.errors import BadInput

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR")  # the runner's other variables may be secrets


class Command(Receiver):
    """The arguments are fixed: nothing that a camera or a bundle says becomes one. It has `timeout_s` to end with 0."""

    kind = "command"

    def __init__(self, name: str, arguments: List[str], timeout_s: float = 30.0) -> None:
        super().__init__(name, timeout_s)
        self._arguments = arguments

    @classmethod
    def of(cls, name: str, fields: Fields) -> "Command":
        """From its settings: command (a list), timeout."""
        value = fields.get("command")
        arguments = fields.texts("command", "a list: a program and its arguments")
        if not isinstance(value, list) or not arguments:
            raise BadInput(
                "command is not a list",
                fields.at("command"),
                "a program and its arguments, as [/usr/local/bin/siren, --seconds, 10]",
                "no shell is used; for one, write [sh, -c, …]",
            )
        if "/" in arguments[0]:
            arguments[0] = os.path.abspath(os.path.join(fields.folder, arguments[0]))
        return cls(name, arguments, fields.seconds("timeout", 30.0, 0.1, 600))

    @property
    def place(self) -> str:
        """The program's name; its arguments may be nobody's business."""
        return os.path.basename(self._arguments[0])

    def prepare(self, where: str) -> None:
        """See Receiver."""
        found = shutil.which(self._arguments[0])  # of a path, whether it can be started
        if found is None:
            raise BadInput(f"no such program: {self.place}", f"{where}.command", "an executable file")
        self._arguments[0] = found

    def send(self, message: Message) -> None:
        """Deliver it."""
        process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={key: os.environ[key] for key in _KEPT if key in os.environ},
            cwd="/",
            start_new_session=True,
        )
        try:
            # A program that does not read its input is no failure: what counts is how it ends.
            with contextlib.suppress(BrokenPipeError):
                process.communicate(json.dumps(message.body).encode() + b"\n", self.timeout_s)
            code = process.wait(self.timeout_s)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"not ended after {self.timeout_s:g} s; killed") from error
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
            process.wait()
        if code:
            raise Failed(f"ended with {code}" if code > 0 else f"ended by signal {-code}")
