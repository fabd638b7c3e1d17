"""What a rule says, as text, and the same taken apart.

    no_mask > 5 s [in zone queue] [between 8 and 18] [on mon-fri]
    camera lost > 1 min           [between …] [on …]
    drift                         [between …] [on …]
    compliance < 90 % over 1 h [of at least 10 persons] [in zone queue] [between …] [on …]

The first word of the first form is a class, by its name (without_mask), by how a person calls it (no_mask), or a role
(alert, attention, ok). A name with blanks stands in quotation marks. Hours and days are of the local time.
"""

import re
import time
from typing import FrozenSet, List, NamedTuple, Optional, Set, Tuple

from jetson.alerts.fields import did_you_mean, duration, in_units
from jetson.errors import BadInput

SEEN, LOST, DRIFT, COMPLIANCE = "seen", "camera lost", "drift", "compliance"
FORM = (
    "CLASS > DURATION [in zone NAME], camera lost > DURATION, drift, or compliance < PERCENT % over DURATION; "
    "then [between 8 and 18] [on mon-fri]"
)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LEAST_PERSONS = 10
LONGEST_S = 7 * 86400.0
_DAY = 24 * 60
_TOKEN = re.compile(r'\s*(?:"([^"]{1,80})"|([<>]=?|%|,)|([^\s<>%,"]+))')
_KEYWORDS = ("in", "between", "on", "of")


class When(NamedTuple):
    """`kind`: SEEN, LOST, DRIFT or COMPLIANCE. `seconds`: how long, or the window. `between`: minutes of the day, from
    the first to before the second, over midnight where the second is smaller; `days`: 0 is Monday, empty: every day.
    """

    kind: str
    seconds: float = 0.0
    what: str = ""  # of SEEN: a class or role
    percent: float = 0.0
    persons: int = LEAST_PERSONS
    zone: str = ""
    between: Optional[Tuple[int, int]] = None
    days: FrozenSet[int] = frozenset()

    def text(self) -> str:
        """In the one spelling that `parse` reads back to the same."""
        if self.kind == SEEN:
            found = f"{_quoted(self.what)} > {in_units(self.seconds)}"
        elif self.kind == LOST:
            found = f"camera lost > {in_units(self.seconds)}"
        elif self.kind == COMPLIANCE:
            found = f"compliance < {self.percent:g} % over {in_units(self.seconds)}"
            if self.persons != LEAST_PERSONS:
                found += f" of at least {self.persons} persons"
        else:
            found = DRIFT
        if self.zone:
            found += f" in zone {_quoted(self.zone)}"
        if self.between is not None:
            found += " between {} and {}".format(*(_clock(minute) for minute in self.between))
        if self.days:
            found += " on " + ",".join(DAYS[day] for day in sorted(self.days))
        return found

    def open_at(self, local: time.struct_time) -> bool:
        """Whether the rule holds at this local time. After midnight, hours that began yesterday are of that day."""
        minute, day = 60 * local.tm_hour + local.tm_min, local.tm_wday
        if self.between is not None:
            first, end = self.between
            if first < end:
                if not first <= minute < end:
                    return False
            elif minute < end:
                day = (day - 1) % 7
            elif minute < first:
                return False
        return not self.days or day in self.days


def parse(text: str, where: str = "when") -> When:
    """A rule's text taken apart; BadInput says what was read and what was expected there."""
    return _Parser(text, where).rule()


def _quoted(name: str) -> str:
    plain = _TOKEN.match(name)
    alone = plain is not None and plain.group(3) == name and name not in ("camera", DRIFT, COMPLIANCE)
    return name if alone else f'"{name}"'


def _clock(minute: int) -> str:
    return f"{minute // 60}:{minute % 60:02d}" if minute % 60 else str(minute // 60)


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._tokens: List[Tuple[str, bool]] = []  # with whether it stood in quotation marks
        self._at = 0
        end = 0
        while text[end:].strip():
            match = _TOKEN.match(text, end)
            if match is None:
                raise BadInput(f"not readable from here: {text[end:].strip()[:40]!r}", where, FORM)
            quoted, sign, word = match.groups()
            self._tokens.append((quoted or sign or word, bool(quoted)))
            end = match.end()
        if not self._tokens:
            raise BadInput("the rule is empty", where, FORM)

    # -- tokens -------------------------------------------------------------------------------------------------------

    def _next(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _is(self, *words: str) -> bool:
        here = self._tokens[self._at : self._at + len(words)]
        return [(word.lower(), quoted) for word, quoted in here] == [(word, False) for word in words]

    def _skip(self, *words: str) -> bool:
        if not self._is(*words):
            return False
        self._at += len(words)
        return True

    def _wrong(self, expected: str, remedy: Optional[str] = None) -> BadInput:
        before = " ".join(word for word, _ in self._tokens[: self._at])
        behind = f" after {before!r}" if before else ""
        found = f"{self._next()!r:.60} is not understood" if self._next() else "the rule ends too early"
        return BadInput(f"{found}{behind}", self._where, expected, remedy)

    def _take(self, expected: str) -> str:
        if not self._next():
            raise self._wrong(expected)
        self._at += 1
        return self._tokens[self._at - 1][0]

    def _need(self, *words: str) -> None:
        if not self._skip(*words):
            raise self._wrong(" ".join(words))

    # -- parts --------------------------------------------------------------------------------------------------------

    def rule(self) -> When:
        quoted = self._tokens[0][1]
        if not quoted and self._skip("camera"):
            self._need("lost")
            self._need(">")
            found = When(LOST, self._duration())
        elif not quoted and self._skip(DRIFT):
            found = When(DRIFT)
        elif not quoted and self._skip(COMPLIANCE):
            found = self._compliance()
        else:
            what = self._take(FORM)
            if what in ("<", ">", "<=", ">=", "%", ",") and not quoted:
                self._at -= 1
                raise self._wrong(FORM)
            if not self._skip(">"):
                raise self._wrong("> and a duration, as > 5 s", did_you_mean(what, (DRIFT, COMPLIANCE, "camera")))
            found = When(SEEN, self._duration(), what)
        return self._conditions(found)

    def _compliance(self) -> When:
        self._need("<")
        percent = self._number("a percentage of more than 0 and at most 100, such as 90 %", 0.01, 100)
        self._need("%")
        self._need("over")
        found = When(COMPLIANCE, self._duration(), percent=percent)
        if self._skip("of", "at", "least"):
            found = found._replace(persons=int(self._number("a whole number of persons", 1, 100000, whole=True)))
            self._need("persons")
        return found

    def _conditions(self, found: When) -> When:
        while self._next():
            if found.kind in (SEEN, COMPLIANCE) and not found.zone and self._skip("in", "zone"):
                found = found._replace(zone=self._take("the name of a zone"))
            elif self._is("between") and found.between is None:
                found = found._replace(between=self._between())
            elif self._is("on") and not found.days:
                found = found._replace(days=self._days())
            else:
                allowed = ["between 8 and 18", "on mon-fri"]
                if found.kind in (SEEN, COMPLIANCE):
                    allowed.insert(0, "in zone NAME")
                word = self._next()
                near = None if word in _KEYWORDS else did_you_mean(word, _KEYWORDS)
                raise self._wrong(", ".join(allowed) + ", each once, or nothing more", near)
        return found

    def _duration(self) -> float:
        expected = "a duration with its unit (s, min, h, d), such as 5 s"
        text = self._take(expected)
        seconds = duration(text)
        if seconds is None and self._next():
            seconds = duration(text + " " + self._next())
            self._at += seconds is not None
        if seconds is None or not 0 < seconds <= LONGEST_S:
            self._at -= 1
            raise self._wrong(expected + ", more than 0 and at most 7 d")
        return seconds

    def _number(self, expected: str, least: float, most: float, whole: bool = False) -> float:
        text = self._take(expected)
        good = re.match(r"^[0-9]{1,6}$" if whole else r"^[0-9]{1,6}(\.[0-9]{1,2})?$", text)
        if not good or not least <= float(text) <= most:
            self._at -= 1
            raise self._wrong(expected)
        return float(text)

    def _minute(self) -> int:
        expected = "an hour of the day, such as 8, 8:30 or 22:00"
        match = re.match(r"^([0-9]{1,2})(?::([0-5][0-9]))?$", self._take(expected))
        minute = 60 * int(match.group(1)) + int(match.group(2) or 0) if match else -1
        if not 0 <= minute <= _DAY:
            self._at -= 1
            raise self._wrong(expected)
        return minute

    def _between(self) -> Tuple[int, int]:
        self._need("between")
        first = self._minute()
        self._need("and")
        end = self._minute()
        if first % _DAY == end % _DAY and (first, end) != (0, _DAY):
            self._at -= 1
            raise self._wrong("an end other than the beginning; leave it out for the whole day")
        return first % _DAY, end

    def _days(self) -> FrozenSet[int]:
        self._need("on")
        days: Set[int] = set()
        while True:
            names = self._take("days, as mon-fri or sat,sun").lower().split("-")
            if len(names) > 2 or not all(name[:3] in DAYS and _is_day(name) for name in names):
                self._at -= 1
                raise self._wrong("days: " + ", ".join(DAYS) + ", as mon-fri or sat,sun")
            first, last = DAYS.index(names[0][:3]), DAYS.index(names[-1][:3])
            days.update((first + step) % 7 for step in range((last - first) % 7 + 1))
            if not self._skip(","):
                return frozenset(days)


def _is_day(name: str) -> bool:
    whole = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    return name in DAYS or name in whole
