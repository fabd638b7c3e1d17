"""The section `alerts` of jetmask.yaml as typed settings.

rules:
  - name: bare face in the queue
    when: no_mask > 5 s in zone queue between 8 and 18     # jetson/alerts/rule.py
    cameras: [gate]          # by name; default: all
    cool_down: 10 min        # after an alert the rule is silent for so long, at each camera by itself
    to: [office]             # default: all receivers
receivers:
  office: {kind: webhook, url: {file: /etc/jetmask/office.url}, hmac_key: {file: /etc/jetmask/office.key}}
keep: 1000                   # alerts that may wait for a receiver; then the oldest goes, and is counted
retry: 1 s                   # first wait after a failure; doubles up to
longest_retry: 60 s
page: https://nano.example.org   # this runner's page as receivers reach it, for links; default: paths alone
outbox: /var/lib/jetmask/alerts.sqlite3    # default: alerts.sqlite3 in the state folder
"""

import os
import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from jetson.alerts import rule
from jetson.alerts.broker import Broker
from jetson.alerts.command import Command
from jetson.alerts.fields import NAME, Fields, did_you_mean
from jetson.alerts.mail import Mail
from jetson.alerts.ntfy import Ntfy
from jetson.alerts.pin import Pin
from jetson.alerts.receiver import Receiver
from jetson.alerts.rule import When
from jetson.alerts.webhook import Webhook
from jetson.bundle.classes import ROLES, Classes
from jetson.errors import BadInput

KINDS: Dict[str, Callable[[str, Fields], Receiver]] = {
    Webhook.kind: Webhook.of,
    Ntfy.kind: Ntfy.of,
    Mail.kind: Mail.of,
    Broker.kind: Broker.of,
    Command.kind: Command.of,
    Pin.kind: Pin.of,
}
MOST = 100


class Rule(NamedTuple):
    """`cameras`: names, empty: all; `to`: names of receivers; `path`: of its keys in the settings, for messages."""

    name: str
    when: When
    cameras: Tuple[str, ...]
    cool_down_s: float
    to: Tuple[str, ...]
    path: str


class AlertSettings(NamedTuple):
    """Checked for its form alone: no secret was read and no address asked, so that it can be done on any machine.

    `data`: what it was made from, to see whether a new file says something else.
    """

    rules: Sequence[Rule] = ()
    receivers: Sequence[Receiver] = ()
    keep: int = 1000
    retry_s: float = 1.0
    longest_retry_s: float = 60.0
    outbox: str = ""
    where: str = "alerts"
    data: Any = None
    page: str = ""

    def same_as(self, other: "AlertSettings") -> bool:
        """Whether both say the same."""
        return bool(self.data == other.data)

    def same_receivers(self, other: "AlertSettings") -> List[str]:
        """Names of receivers of which both say the same, also of the waits between attempts."""
        if (self.retry_s, self.longest_retry_s) != (other.retry_s, other.longest_retry_s):
            return []
        mine, theirs = ((one.data or {}).get("receivers") or {} for one in (self, other))
        return [one.name for one in other.receivers if one.name in mine and mine[one.name] == theirs.get(one.name)]

    def prepare(self) -> None:
        """Whether the receivers can work on this machine; BadInput or DeviceMismatch."""
        for one in self.receivers:
            one.prepare(f"{self.where}.receivers.{one.name}")


def alerts_of(data: Any, where: str = "alerts", folder: str = "") -> AlertSettings:
    """The settings of a mapping; BadInput with the path of the key, as alerts.rules[0].when.

    `where`: the path of the section; `folder`: relative paths are seen from there.
    """
    top = Fields(data, where, folder)
    receivers = [_receiver(name, value, top.at("receivers"), folder) for name, value in _named(top, "receivers")]
    listed = top.get("rules", [])
    if not isinstance(listed, list) or len(listed) > MOST:
        raise BadInput("rules is not a list", top.at("rules"), f"up to {MOST} rules, each with name and when")
    names = [one.name for one in receivers]
    rules: List[Rule] = []
    for number, value in enumerate(listed):
        one = _rule(Fields(value, f"{top.at('rules')}[{number}]", folder), names)
        if one.name in [other.name for other in rules]:
            raise BadInput(f"there are two rules called {one.name}", f"{one.path}.name", "each name once")
        rules.append(one)
    if rules and not receivers:
        raise BadInput("rules, and nobody to tell", where, "receivers: at least one, with its kind")
    found = AlertSettings(
        tuple(rules),
        tuple(receivers),
        top.whole("keep", 1000, 10, 1000000),
        top.seconds("retry", 1.0, 0.01, 3600),
        top.seconds("longest_retry", 60.0, 0.01, 86400),
        top.path("outbox"),
        where,
        data,
        _page(top),
    )
    top.done()
    return found


def _page(top: Fields) -> str:
    text = top.text("page", "", "an address").rstrip("/")
    if text and not re.match(r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", text):
        raise BadInput(f"not an address of a page: {text:.60}", top.at("page"), "https://HOST or https://HOST/PATH")
    return text


def _named(top: Fields, key: str) -> List[Tuple[str, Any]]:
    value = top.get(key, {})
    if not isinstance(value, dict) or len(value) > MOST:
        raise BadInput(f"{key} is not a mapping", top.at(key), f"NAME: settings, up to {MOST}")
    return list(value.items())


def _receiver(name: Any, value: Any, where: str, folder: str) -> Receiver:
    if not isinstance(name, str) or not NAME.match(name):
        raise BadInput(f"not a receiver's name: {name!r:.60}", where, "letters, digits, '_', '-' and '.', at most 40")
    fields = Fields(value, f"{where}.{name}", folder)
    kind = fields.text("kind", expected="one of " + ", ".join(KINDS))
    if kind not in KINDS:
        raise BadInput(
            f"unknown kind of receiver: {kind:.60}",
            fields.at("kind"),
            "one of " + ", ".join(KINDS),
            did_you_mean(kind, KINDS),
        )
    made = KINDS[kind](name, fields)
    fields.done()
    return made


def _rule(fields: Fields, receivers: Sequence[str]) -> Rule:
    text = fields.text("when", expected=rule.FORM)
    when = rule.parse(text, fields.at("when"))
    to = fields.texts("to", "names of receivers")
    for name in to:
        if name not in receivers:
            raise BadInput(
                f"unknown receiver {name:.60}",
                fields.at("to"),
                "one of " + ", ".join(receivers),
                did_you_mean(name, receivers),
            )
    made = Rule(
        fields.text("name", when.text(), "a name"),
        when,
        tuple(fields.texts("cameras", "names of cameras")),
        fields.seconds("cool_down", 600.0, 0, 7 * 86400),
        tuple(to or receivers),
        fields.where,
    )
    fields.done()
    return made


def labels_of(what: str, classes: Classes) -> Tuple[int, ...]:
    """Numbers of the classes that a rule's word means: a class's name, how a person calls it, or a role; () for none.

    >>> from jetson.bundle.classes import MASK_CLASSES
    >>> labels_of("no_mask", MASK_CLASSES), labels_of("attention", MASK_CLASSES), labels_of("hat", MASK_CLASSES)
    ((1,), (2,), ())
    """
    if what in classes.names:
        return (classes.names.index(what),)
    words = [word.replace(" ", "_") for word in classes.words()]
    if what.replace(" ", "_") in words:
        return (words.index(what.replace(" ", "_")),)
    return tuple(number for number, role in enumerate(classes.roles) if role == what)


def check(
    settings: AlertSettings, cameras: Sequence[str], zones: Mapping[str, Iterable[str]], classes: Optional[Classes]
) -> None:
    """BadInput where a rule names a camera, a zone or a class that does not exist. `zones`: names by camera; `classes`:
    None where no bundle is known yet."""
    for one in settings.rules:
        for name in one.cameras:
            if name not in cameras:
                raise BadInput(
                    f"unknown camera {name:.60}",
                    f"{one.path}.cameras",
                    "one of " + ", ".join(cameras),
                    did_you_mean(name, cameras),
                )
        when = one.when
        places = sorted({zone for name in one.cameras or cameras for zone in zones.get(name, ())})
        if when.zone and when.zone not in places:
            raise BadInput(
                f"unknown zone {when.zone}",
                f"{one.path}.when",
                "one of " + ", ".join(places)
                if places
                else "a zone of the cameras that the rule is for; they have none",
                did_you_mean(when.zone, places),
            )
        if when.kind == rule.SEEN and classes is not None:
            labels = labels_of(when.what, classes)
            known = list(classes.names) + [word.replace(" ", "_") for word in classes.words()] + list(ROLES)
            if not labels:
                raise BadInput(
                    f"unknown class or role {when.what:.60}",
                    f"{one.path}.when",
                    "one of " + ", ".join(dict.fromkeys(known)),
                    did_you_mean(when.what, known),
                )
            if all(classes.roles[label] == "ignore" for label in labels):
                raise BadInput(f"{when.what} is ignored, so nobody is seen", f"{one.path}.when", "another class")


def default_outbox() -> str:
    """alerts.sqlite3 in $JETMASK_STATE, else in jetmask of the user's state folder."""
    state = os.environ.get("JETMASK_STATE")
    if state:
        return os.path.join(state, "alerts.sqlite3")
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "jetmask", "alerts.sqlite3")
