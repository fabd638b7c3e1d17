"""How it stands with the broker, as one object that the session writes and everybody reads."""

import ssl
from typing import Dict

from jetson.mqtt import reasons
from jetson.mqtt.link import Gone


class Standing:
    """How it stands with the broker; written by the session, read by everybody. `version`: 5, or 4 for MQTT 3.1.1.

    `problems`: what it does not take, by topic, in words; `refused`: messages that it has refused until now.
    """

    def __init__(self, protocol: str) -> None:
        self._auto = protocol == "auto"
        self._proven = False  # a broker has taken us in with this version
        self.version = 4 if protocol == "3.1.1" else 5
        self.retain = True
        self.qos = 1
        self.connected = False
        self.error = "not connected yet"
        self.connects = 0
        self.refused = 0
        self.problems: Dict[str, str] = {}

    def is_connected(self) -> None:
        """A session has come about: the version of the protocol is the broker's."""
        self.error, self.connected, self._proven = "", True, True
        self.connects += 1

    def has_failed(self, error: BaseException, answered: bool) -> bool:
        """A session is over; whether it is worth to try again at once, in another way."""
        self.connected = False
        self.error = _words(error)
        if self.problems:  # some brokers refuse one message and hang up; the cause is in what came before
            self.error += f"; before that, {sorted(self.problems.values())[0]}"
        code = error.code if isinstance(error, Gone) else 0
        if code == reasons.RETAIN_NOT_SUPPORTED and self.retain:
            self.retain = False
            return True
        if code == reasons.QOS_NOT_SUPPORTED and self.qos:
            self.qos = 0
            return True
        silent = isinstance(error, Gone) and not answered and not self._proven
        if self._auto and (code == reasons.UNSUPPORTED_VERSION or silent):
            # An old broker answers so to MQTT 5, or hangs up without a word, as one that is just starting does.
            self.version = 9 - self.version
            return self.version == 4
        return False


def _words(error: BaseException) -> str:
    # A wrong name is a CertificateError of its own in Python 3.6.
    if isinstance(error, ssl.CertificateError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"its certificate is not trusted ({error}); name its CA as ca_file in --mqtt-config"
    return str(error) or type(error).__name__
