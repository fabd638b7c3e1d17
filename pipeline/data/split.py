"""`jetmask data split`: parts that share no photograph, the same for the same seed."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jetson.cli import table
from jetson.errors import UsageError
from pipeline.data import check, layout, leak
from pipeline.data.classes import MASKS, ClassSet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What to split, into what, and by which shares of each part."""

    source: Path
    out: Path
    shares: Mapping[str, float]
    seed: int = 0
    bits: int = leak.NEAR_BITS
    json: bool = False


def groups(hashed: np.ndarray, bits: int = leak.NEAR_BITS, mirrored: np.ndarray | None = None) -> np.ndarray:
    """Hashes uint64 (N,) -> group number (N,): near-duplicates, and near-duplicates of those, share one.

    `mirrored`: the hashes of the mirrored pictures, to keep those together too.
    """
    root = np.arange(len(hashed))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = int(root[i])
        return i

    for other in (hashed, mirrored):
        for start, differing in leak.apart(hashed, other) if other is not None else ():
            near = differing <= bits
            for row in np.flatnonzero(near.any(axis=1)).tolist():
                own, others = find(start + row), root[near[row]]
                # Where many are near, most are joined by now.
                for j in np.unique(others).tolist() if (others != own).any() else ():
                    a, b = sorted((find(j), own))
                    root[b] = own = a
    return np.array([find(i) for i in range(len(hashed))], int)


def split(
    entries: Sequence[check.Entry],
    shares: Mapping[str, float],
    seed: int = 0,
    bits: int = leak.NEAR_BITS,
    classes: ClassSet = MASKS,
) -> dict[str, list[check.Entry]]:
    """Deal entries out to the parts named in `shares`, whole groups at a time, so that images and boxes of each class
    come near to the shares; a part with a share of 0 is not made. Depends on the images' content, the labels, the
    shares and the seed: not on file names or order.
    """
    total = sum(shares.values())
    if not shares or not 0 < total < math.inf or min(shares.values()) < 0:  # NaN is neither
        raise UsageError(
            "wrong shares of the parts", None, "positive numbers, for instance --train 0.8 --val 0.1 --test 0.1"
        )
    if not -(2**63) <= seed < 2**63:
        raise UsageError(f"--seed {seed}", "--seed", "a 64-bit integer")
    if not 0 <= bits <= 32:
        raise UsageError(f"--bits {bits}", "--bits", "0 to 32: unlike pictures differ in about 32 of 64 bits")
    paths = [e.image for e in entries]
    hashed, mirrored = leak.hashes(paths)
    number = groups(hashed, bits, mirrored)
    kinds = range(len(classes.names))
    counts = np.array([[1] + [e.labels.count(k) for k in kinds] for e in entries], float).reshape(-1, 1 + len(kinds))
    members: dict[int, list[int]] = {}
    for i, group in enumerate(number):
        members.setdefault(int(group), []).append(i)

    def lot(group: list[int]) -> bytes:
        content = min(hashlib.sha256(paths[i].read_bytes()).digest() for i in group)
        return hashlib.sha256(seed.to_bytes(8, "big", signed=True) + content).digest()

    # The largest first, while there is room for them; equal ones in an order drawn by the seed.
    order = sorted(members.values(), key=lambda group: (-len(group), lot(group)))
    names = [name for name, share in shares.items() if share > 0]
    goal = np.array([shares[name] / total for name in names])[:, None] * counts.sum(0)[None]
    weight = 1 / np.maximum(counts.sum(0), 1)
    have = np.zeros_like(goal)
    parts: dict[str, list[check.Entry]] = {name: [] for name in names}
    for group in order:
        more = counts[group].sum(0)
        # Where the squared distance to the goals, in shares of each count, falls most.
        gain = ((((goal - have) ** 2) - (goal - have - more) ** 2) * weight**2).sum(1)
        best = int(gain.argmax())
        have[best] += more
        parts[names[best]] += [entries[i] for i in group]
    for name in parts:
        parts[name].sort(key=lambda e: e.name)
    return parts


def run(settings: Settings) -> int:
    """Write the parts of a split folder, and say what each got."""
    entries, licenses, classes = layout.load(settings.source)
    parts = split(entries, settings.shares, settings.seed, settings.bits, classes)
    with layout.folder_aside(settings.out) as part:
        for name, chosen in parts.items():
            (part / name).mkdir()
            how = f"{name} of {settings.source.name}, split by jetmask with seed {settings.seed}, {settings.bits} bits"
            layout.write(part / name, chosen, licenses, how, classes)
    kinds = range(len(classes.names))
    rows = [
        [name, len(chosen)] + [sum(e.labels.count(k) for e in chosen) for k in kinds] for name, chosen in parts.items()
    ]
    if settings.json:
        print(json.dumps({row[0]: dict(zip(("images", *classes.names), row[1:], strict=True)) for row in rows}))
    else:
        print(table(["part", "images", *classes.names], rows))
        log.info(f"wrote {settings.out}")
    for name, chosen in parts.items():
        if not chosen:
            log.warning(f"note: {name} got no image; there are too few images, or they are near-duplicates")
    return 0
