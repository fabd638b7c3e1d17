"""What a training tells while it runs: in words, as JSON lines, or not at all."""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TextIO

from tqdm import tqdm

from jetson.bundle.classes import Classes
from jetson.evaluation import average_precision

STEPS_BEFORE_ESTIMATE = 20  # the first ones trace the network
FEW_TO_LEARN, FEW_TO_JUDGE = 50, 20  # boxes of a class: under these it is said
NARROW = 10.0  # points: an interval of the first figure that is wider than this is said to be wide


class Facts(NamedTuple):
    """What is known before the first step. boxes: {split: {class: boxes}}; before: the figure that it starts with, by
    the weights that it starts from, with its 95 % bounds; None where they know other classes."""

    folder: str
    data: str
    photographs: Mapping[str, int]
    boxes: Mapping[str, Mapping[str, int]]
    classes: Classes
    start: str
    epochs: int
    steps: int
    images: int
    optimizer: str
    learning_rate: float
    done: int
    before: float | None
    bounds: tuple[float, float] | None


class Progress(Protocol):
    """Who is told. All times are seconds."""

    def begin(self, facts: Facts) -> None:
        """Before the first step."""

    def epoch_begins(self, name: str, steps: int) -> None:
        """An epoch of so many steps begins."""

    def step(self, losses: Mapping[str, float]) -> None:
        """A step is done; the epoch's mean losses so far."""

    def left(self, seconds: float) -> None:
        """How long the whole training still takes, told once after the first steps."""

    def epoch(self, row: Mapping[str, Any], best: float, best_epoch: int, left: float) -> None:
        """An epoch is done and validated. row: as in log.csv; left: what is left of the training."""

    def end(self, result: Mapping[str, Any]) -> None:
        """The training is done."""


class Quiet:
    """Tells nothing."""

    def begin(self, facts: Facts) -> None: ...

    def epoch_begins(self, name: str, steps: int) -> None: ...

    def step(self, losses: Mapping[str, float]) -> None: ...

    def left(self, seconds: float) -> None: ...

    def epoch(self, row: Mapping[str, Any], best: float, best_epoch: int, left: float) -> None: ...

    def end(self, result: Mapping[str, Any]) -> None: ...


class JsonLines(Quiet):
    """One JSON object a line on stdout; `event` says what it tells: start, left, epoch, end."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout

    def _tell(self, event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), file=self.stream, flush=True)

    def begin(self, facts: Facts) -> None:
        values = {**facts._asdict(), "classes": dict(zip(*facts.classes, strict=True))}
        self._tell("start", **values, warnings=warnings(facts))

    def left(self, seconds: float) -> None:
        self._tell("left", seconds=round(seconds))

    def epoch(self, row: Mapping[str, Any], best: float, best_epoch: int, left: float) -> None:
        self._tell("epoch", **row, best=best, best_epoch=best_epoch, left_s=round(left))

    def end(self, result: Mapping[str, Any]) -> None:
        self._tell("end", **result)


class Words(Quiet):
    """Lines on stderr, and on a terminal a bar for the steps of the epoch that runs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.bar: Any = None
        self.facts: Facts | None = None

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.clear()
        print(text, file=self.stream, flush=True)

    def begin(self, facts: Facts) -> None:
        self.facts = facts
        for line in summary(facts):
            self._say(line)

    def epoch_begins(self, name: str, steps: int) -> None:
        if self.stream.isatty():
            self.bar = tqdm(total=steps, desc=name, unit="step", file=self.stream, mininterval=1, leave=False)

    def step(self, losses: Mapping[str, float]) -> None:
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix({key: f"{value:.3f}" for key, value in losses.items()}, refresh=False)

    def left(self, seconds: float) -> None:
        self._say(f"about {span(seconds)} left for the whole training")

    def epoch(self, row: Mapping[str, Any], best: float, best_epoch: int, left: float) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        assert self.facts is not None
        self._say(epoch_line(row, self.facts, best, best_epoch, left))

    def end(self, result: Mapping[str, Any]) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def span(seconds: float) -> str:
    """A time as a person says it.

    >>> span(42), span(754), span(9000)
    ('42 s', '12 min 34 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def points(value: float | None) -> str:
    """AP as text."""
    return "  – " if value is None else f"{value:4.1f}"


def summary(facts: Facts) -> list[str]:
    """The first lines."""
    names, words = facts.classes.names, facts.classes.words()
    splits = list(facts.photographs)
    counts = ", ".join(f"{facts.photographs[split]:,} in {split}" for split in splits)
    lines = [f"data      {facts.data}: photographs: {counts}"]
    width = max(len(word) for word in words)
    for name, word in zip(names, words, strict=True):
        boxes = ", ".join(f"{facts.boxes[split][name]:,} in {split}" for split in splits)
        lines.append(f"          {word:{width}}  {boxes}")
    lines.append(f"starts    {facts.start}")
    if facts.before is not None:
        bounds = f" (95 % bounds {facts.bounds[0]:.1f} to {facts.bounds[1]:.1f})" if facts.bounds else ""
        lines.append(f"          {average_precision.figure_name(names)} on val now {facts.before:.1f}{bounds}")
    gone = f" ({facts.done} of them done)" if facts.done else ""
    epochs = "1 epoch" if facts.epochs == 1 else f"{facts.epochs} epochs"
    lines.append(
        f"training  {epochs} of {facts.steps:,} steps{gone}, about {facts.images:,} augmented images in all; "
        f"{facts.optimizer}, learning rate {facts.learning_rate:g}"
    )
    lines.append(f"folder    {facts.folder} (README.md in it describes each file)")
    return lines + [f"note: {warning}" for warning in warnings(facts)]


def warnings(facts: Facts) -> list[str]:
    """What makes the outcome less sure than it looks."""
    found = []
    val = list(facts.photographs)[-1]
    for name, word in zip(facts.classes.names, facts.classes.words(), strict=True):
        train = sum(facts.boxes[split][name] for split in facts.photographs if split != val)
        if not train:
            found.append(f"no box of {word} to train on: this class will not be detected")
        elif train < FEW_TO_LEARN:
            found.append(f"only {train} boxes of {word} to train on; label about {FEW_TO_LEARN} or more")
        judged = facts.boxes[val][name]
        if not judged:
            found.append(f"no box of {word} in {val}: its AP cannot be measured")
        elif judged < FEW_TO_JUDGE:
            found.append(f"only {judged} boxes of {word} in {val}: its AP is a rough indication")
    if facts.bounds and facts.bounds[1] - facts.bounds[0] > NARROW:
        found.append(
            f"{val} has {facts.photographs[val]} photographs: the AP is known to about "
            f"±{(facts.bounds[1] - facts.bounds[0]) / 2:.0f} points, and smaller differences mean nothing"
        )
    return found


def epoch_line(row: Mapping[str, Any], facts: Facts, best: float, best_epoch: int, left: float) -> str:
    """One line for an epoch: losses, AP per class, the best so far."""
    width = len(str(facts.epochs))
    text = (
        f"epoch {row['epoch']:{width}}/{facts.epochs}  class loss {row['cls_loss']:.3f}, box loss {row['box_loss']:.3f}"
    )
    if row.get("map50") is not None:
        known = [
            f"{word} {points(row[ap_key(name)]).strip()}"
            for name, word in zip(facts.classes.names, facts.classes.words(), strict=True)
            if row.get(ap_key(name)) is not None
        ]
        shown = known if len(known) <= 6 else [*sorted(known, key=lambda text: float(text.rsplit(" ", 1)[1]))[:6], "…"]
        text += f"  mAP50 {points(row['map50'])} ({', '.join(shown)})"
        text += "  best" if row["epoch"] == best_epoch else f"  best {best:.1f} of {_when(best_epoch)}"
    return text + (f"  {span(left)} left" if row["epoch"] < facts.epochs else "")


def _when(epoch: int) -> str:
    return f"epoch {epoch}" if epoch else "the start"


def ap_key(name: str) -> str:
    """The column of log.csv that holds a class's AP."""
    return "ap_" + name


class Clock:
    """Estimates what is left of a training from the steps and validations that were made."""

    def __init__(self, steps: int, validations: int) -> None:
        self.steps, self.validations = steps, validations  # left
        self.seen = 0
        self.step_s, self.validation_s = 0.0, 0.0
        self._since = time.monotonic()

    def step_done(self) -> bool:
        """Count a step; whether the first estimate can be told now."""
        now = time.monotonic()
        took, self._since = now - self._since, now
        self.seen += 1
        self.steps -= 1
        if self.seen > 3:  # the first ones trace the network, once for each size
            keep = min(0.98, 1 - 1 / (self.seen - 3))
            self.step_s = keep * self.step_s + (1 - keep) * took
        return self.seen == STEPS_BEFORE_ESTIMATE

    def validated(self, seconds: float) -> None:
        """Count a validation."""
        self.validations -= 1
        self.validation_s = seconds
        self.restart()

    def restart(self) -> None:
        """What happened since the last step was none."""
        self._since = time.monotonic()

    def left(self) -> float:
        """Seconds that are left."""
        return max(0, self.steps) * self.step_s + max(0, self.validations) * self.validation_s


def teller(output: str) -> Progress:
    """Who tells "words", "json" lines, or nothing ("quiet")."""
    made: dict[str, type[Quiet]] = {"words": Words, "json": JsonLines, "quiet": Quiet}
    return made[output]()
