"""A pin of the board's header goes high for a while: a lamp, a horn, a relay. Untested on hardware.

Needs Jetson.GPIO, which JetPack brings, and a user in the group gpio.
"""

import time
from typing import Any, Callable

from jetson.alerts.fields import Fields
from jetson.alerts.receiver import Message, Receiver, Refused
from jetson.errors import DeviceMismatch
from jetson.monitor.journal import unstamp

LATE_S = 60.0  # a horn for what was a while ago would only confuse


class Pin(Receiver):
    """`number`: of the header (BOARD numbering); `low`: active is low. The pin is held for `seconds`, one at a time."""

    kind = "gpio"

    def __init__(
        self, name: str, number: int, seconds: float, low: bool, wait: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(name)
        self._gpio: Any = None
        self._number = number
        self._seconds = seconds
        self._low = low
        self._wait = wait

    @classmethod
    def of(cls, name: str, fields: Fields) -> "Pin":
        """From its settings: pin, seconds, active_low."""
        fields.needed("pin", "a pin of the header, 1 to 40")
        number = fields.whole("pin", 0, 1, 40)
        return cls(name, number, fields.seconds("seconds", 5.0, 0.05, 600), fields.flag("active_low"))

    @property
    def place(self) -> str:
        """Which pin."""
        return f"pin {self._number}"

    def prepare(self, where: str) -> None:
        """DeviceMismatch where there is no Jetson.GPIO. The pin is an output, and off, from now on."""
        gpio = self._gpio = _module(where)
        self._on, self._off = (gpio.LOW, gpio.HIGH) if self._low else (gpio.HIGH, gpio.LOW)
        gpio.setmode(gpio.BOARD)
        gpio.setup(self._number, gpio.OUT, initial=self._off)

    def send(self, message: Message) -> None:
        """Hold the pin."""
        if time.time() - unstamp(message.body["at"]) > LATE_S:
            raise Refused("the alert is over a minute old: no signal is given for it")
        self._gpio.output(self._number, self._on)
        try:
            self._wait(self._seconds)
        finally:
            self._gpio.output(self._number, self._off)

    def close(self) -> None:
        """Back to how it was."""
        if self._gpio is not None:
            self._gpio.output(self._number, self._off)
            self._gpio.cleanup(self._number)


def _module(where: str) -> Any:
    try:
        import Jetson.GPIO as gpio
    except Exception as error:  # it raises RuntimeError and others of its own on a machine that is no Jetson
        raise DeviceMismatch(
            "Jetson.GPIO cannot be used here",
            where,
            "a Jetson with the Python package Jetson.GPIO",
            "on a Jetson: python3 -m pip install Jetson.GPIO; elsewhere leave the receiver out",
        ) from error
    return gpio
