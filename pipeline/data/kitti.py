"""Read KITTI labels, as KITTI has them and NVIDIA's training tools write them: 15 words a line, corners in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pipeline.data import textfile, textlabels
from pipeline.data.labels import Box, Collection, Finding
from pipeline.data.source import Source

_SHAPE = "type truncated occluded alpha left top right bottom and seven more numbers"
_NUMBERS = (7, 14)  # those after the name: up to the box, or all


def read(source: Source, paths: Sequence[Path]) -> Collection:
    """`paths`: the label files, in label_2/ or labels/ or beside their pictures."""
    labels = list(paths)
    if not labels:
        labels = source.tree.ending(".txt")
    return textlabels.read(source, labels, _boxes, "image_2/*.png and label_2/*.txt")


def _boxes(path: Path, findings: list[Finding]) -> list[Box]:
    boxes = []
    for line, text in enumerate(textfile.lines(path), 1):
        # A class name may hold spaces: the numbers are counted from its end. One too many may be a score behind them or
        # the second word of the name ("mask 1"), which would shift every field: such a line is not guessed at.
        words = text.split()
        if not words:
            continue
        first = next((i for i, word in enumerate(words) if _number(word) is not None), len(words))
        values = [_number(word) for word in words[first:]]
        numbers = [value for value in values if value is not None]
        if first == 0 or len(values) not in _NUMBERS or len(numbers) < len(values):
            why = f" ({len(words)} words)" if first and len(numbers) == len(values) else ""
            if len(numbers) == len(values) == max(_NUMBERS) + 1:
                why = f" ({len(words)} words, one too many: maybe a score, or a class name that ends in a number)"
            findings.append(
                Finding(
                    str(path), line, "label broken", f"{text[:60]!r}{why} is not {_SHAPE}", "the line is left out", True
                )
            )
            continue
        left, top, right, bottom = numbers[3:7]
        boxes.append(Box(" ".join(words[:first]), (left, top, right - left, bottom - top), line))
    return boxes


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
