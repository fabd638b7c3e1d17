"""The settings of jetson.mqtt.publisher: the broker's address from the command line, everything else from a file.

The file is JSON; names of files in it are seen from its own folder. It holds the password, so nobody else should be
able to read it. Keys, all optional: username, password; ca_file (default: the system's CAs); cert_file, key_file (a
client certificate); node (this device's name in topics, default: the host's); discovery (Home Assistant's prefix,
default homeassistant; empty: off); spool (folder), spool_events, spool_mb (limits); counts_every_s; protocol (5, 3.1.1;
default auto: 5 where the broker knows it); read_back (3.1.1 alone: events wait until our own status has come back).
"""

import argparse
import difflib
import os
import re
import socket
import ssl
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from jetson import files
from jetson.errors import BadInput, UsageError
from jetson.net import loopback

PREFIX = "jetmask"
_URL = "mqtt://HOST or mqtts://HOST, with :PORT where it is not 1883 or 8883"


class _Settings(NamedTuple):
    host: str
    port: int
    tls: bool
    prefix: str
    node: str
    discovery: str
    username: str
    password: str
    ca_file: str
    cert_file: str
    key_file: str
    spool: str
    spool_events: int
    spool_mb: int
    counts_every_s: float
    protocol: str
    read_back: bool
    notes: List[str]


_DEFAULTS: Dict[str, Any] = {
    "username": "",
    "password": "",
    "ca_file": "",
    "cert_file": "",
    "key_file": "",
    "node": "",
    "discovery": "homeassistant",
    "spool": "",
    "spool_events": 100000,
    "spool_mb": 64,
    "counts_every_s": 1.0,
    "protocol": "auto",
    "read_back": True,
}
PROTOCOLS = ("auto", "5", "3.1.1")
_LIMITS: Dict[str, Tuple[float, float]] = {
    "spool_events": (100, 10000000),
    "spool_mb": (1, 100000),
    "counts_every_s": (0.1, 3600),
}


class Settings(_Settings):
    """Checked settings; `notes`: what the log should say about them."""

    @property
    def broker(self) -> str:
        """The broker's address as it may be shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    def context(self) -> ssl.SSLContext:
        """TLS as it is used: certificate and name are checked, nothing below TLS 1.2."""
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if hasattr(context, "minimum_version"):
            context.minimum_version = ssl.TLSVersion.TLSv1_2
        else:  # Python 3.6
            context.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file or None)
        return context


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `serve` that concern MQTT."""
    add = parser.add_argument
    add("--mqtt", metavar="URL", help="publish counts and events to this broker: " + _URL)
    add("--mqtt-config", metavar="FILE", help="JSON: username, password, ca_file, … (see jetson/mqtt/settings.py)")
    add("--mqtt-prefix", default=PREFIX, metavar="TOPIC", help="first part of the topics (default %(default)s)")


def read(url: Optional[str], path: Optional[str] = None, prefix: str = PREFIX) -> Optional[Settings]:
    """The settings for the broker at `url`, all else from the file `path`; topics begin with `prefix`.

    None without a broker. UsageError and BadInput on mistakes.
    """
    if not url:
        if path:
            raise UsageError("--mqtt-config without a broker", "--mqtt-config", "--mqtt " + _URL)
        return None
    values: Dict[str, Any] = dict(_DEFAULTS, **(_file(path) if path else {}))
    values.update(_address(url))
    values["prefix"] = _topic(prefix, "--mqtt-prefix")
    settings = _settings(values, path or "--mqtt")
    if path and settings.password and os.stat(path).st_mode & 0o077:
        settings.notes.append(f"warning: others may read the password in {path}: chmod 600")
    return settings


def of_section(section: Mapping[str, Any], credentials: Callable[[str], Tuple[str, str]], where: str) -> Settings:
    """The settings of a configuration's `mqtt:` (jetson.config, which has checked its keys).

    `credentials(name)`: (user name, password). BadInput names `where`.
    """
    values: Dict[str, Any] = dict(_DEFAULTS, **section)
    name = values.pop("credentials", "")
    try:
        values.update(_address(values.pop("broker")))
        values["prefix"] = _topic(values.pop("prefix", "jetmask"), "prefix")
        if name:
            values["username"], values["password"] = credentials(name)
        return _settings(values, where)
    except UsageError as error:
        raise BadInput(error.what, where, error.expected, error.remedy) from error


def _settings(values: Dict[str, Any], where: str) -> Settings:
    values["discovery"] = _topic(values["discovery"], where + ", discovery") if values["discovery"] else ""
    # A level of a topic and a name for Home Assistant at once.
    values["node"] = re.sub(r"[^A-Za-z0-9_-]", "_", values["node"] or socket.gethostname().split(".")[0]) or "jetmask"
    values["spool"] = values["spool"] or default_spool()
    notes = []
    if values["password"] and not values["username"]:
        raise BadInput("a password without a username", where, "both")
    if values["key_file"] and not values["cert_file"]:
        raise BadInput("key_file without cert_file", where, "both")
    if not values["tls"] and values["password"] and not loopback(values["host"]):
        notes.append("warning: the MQTT password goes over the network unencrypted; mqtts:// would encrypt it")
    settings = Settings(notes=notes, **values)
    try:
        settings.context()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise BadInput(
            f"the TLS files cannot be used: {error}", where, "ca_file, cert_file and key_file in PEM form"
        ) from error
    return settings


def default_spool() -> str:
    """$JETMASK_STATE/mqtt, else jetmask/mqtt in the user's state folder."""
    state = os.environ.get("JETMASK_STATE")
    if state:
        return os.path.join(state, "mqtt")
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "jetmask", "mqtt")


def _address(url: str) -> Dict[str, Any]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError("not a broker's address", "--mqtt", _URL) from error
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "a password on the command line can be seen by every user of this machine",
            "--mqtt",
            _URL,
            "put username and password into a file: --mqtt-config FILE",
        )
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise UsageError(f"not a broker's address: {url}", "--mqtt", _URL)
    tls = parts.scheme == "mqtts"
    return {"host": parts.hostname, "port": port or (8883 if tls else 1883), "tls": tls}


def _file(path: str) -> Dict[str, Any]:
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise BadInput("not an object", path, '{"username": "...", "password": "..."}')
    for key, value in found.items():
        if key not in _DEFAULTS:
            near = difflib.get_close_matches(key, _DEFAULTS, 1)
            raise BadInput(
                f"unknown key: {key}",
                path,
                "one of " + ", ".join(sorted(_DEFAULTS)),
                f"did you mean {near[0]}?" if near else None,
            )
        kind = type(_DEFAULTS[key])
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise BadInput(
                f"{key} is {value!r}" if key != "password" else "password is not a string",
                path,
                {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}[kind.__name__],
            )
        if key in _LIMITS and not _LIMITS[key][0] <= value <= _LIMITS[key][1]:
            raise BadInput(f"{key} is {value!r}", path, "{} to {}".format(*_LIMITS[key]))
        if key == "protocol" and value not in PROTOCOLS:
            raise BadInput(f"{key} is {value!r}", path, "one of " + ", ".join(PROTOCOLS))
    folder = os.path.dirname(os.path.abspath(path))
    return {
        key: os.path.join(folder, value) if value and (key.endswith("_file") or key == "spool") else value
        for key, value in found.items()
    }


def _topic(text: str, where: str) -> str:
    if not text or re.search(r"[+#$\s\x00-\x1f]", text) or not all(text.split("/")) or len(text) > 100:
        raise UsageError(
            f"not the beginning of a topic: {text!r}",
            where,
            "names with / between them, without blanks, +, # and $",
        )
    return text
