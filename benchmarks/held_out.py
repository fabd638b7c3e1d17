"""The people whom training never sees: two validation splits made of training collections.

    python -m benchmarks.held_out --data DIR [--out FOLDER]

`large`: large, mostly sharp faces of crops/ and extra2/, to be looked at with an input of 640. `incorrect`: masks worn
incorrectly in train/, crops/ and extra/, with all of val/ beside them so that a mask worn well and called wrong counts.
Both were chosen by eye, person by person, on contact sheets; whoever is in several frames or looks like somebody in the
split is kept out of training as well, and so are near-duplicates (64-bit dHash of the image or its mirror image).

The list is pipeline/training/held_out.json (names only): training reads it. With --out, FOLDER/large and
FOLDER/incorrect are written as splits that `jetmask evaluate --data` takes.
"""

import argparse
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jetson import files
from pipeline.data import leak
from pipeline.training.dataset import HELD_OUT

# (folder, name up to its number, first and last number, shown at most, what is there)
LARGE = (
    ("crops", "cd7_n_", 3205, 3295, 60, "bare faces, about six people"),
    ("crops", "cd7_m_", 600, 680, 60, "masked faces, street photographs"),
    ("crops", "cd7_m_", 1400, 1440, 30, "masked faces, portraits"),
    ("extra2", "thesus_", 5230, 5330, 90, "portraits, one person each"),
    ("extra2", "mohsin222_", 4100, 4126, 27, "portraits, colour"),
    ("extra2", "saltyfish_", 4365, 4395, 8, "a man in a white shirt"),
    ("extra2", "saltyfish_", 4485, 4505, 10, "a man with a woollen hat, with and without mask"),
    ("extra2", "daniyal_", 5571, 5588, 12, "a man with a KN95 mask"),
    ("extra2", "daniyal_", 5658, 5678, 12, "the same"),
    ("extra2", "daniyal_", 5515, 5529, 15, "single masked and bare people"),
)
# Beside them: the same people elsewhere, or people who may be the same; and the numbers next to a run of one person.
NOT_TRAINED_ON = (
    ("crops", "cd7_n_", 3195, 3305),
    ("crops", "cd7_m_", 590, 690),
    ("crops", "cd7_m_", 1395, 1445),
    ("extra2", "saltyfish_", 4437, 4449),
    ("extra2", "daniyal_", 5550, 5588),
    ("extra2", "daniyal_", 5637, 5644),
    ("extra2", "daniyal_", 5652, 5656),
    ("extra2", "daniyal_", 5515, 5517),
    ("extra2", "daniyal_", 5575, 5579),
)
INCORRECT = {
    "train": (94, 156, 305, 387, 388, 440, 459, 562, 627, 673, 693, 698, 702),
    "crops": (31, 538, 713, 241, 402, 372, 716, 174, 492, 535, 899, 945, 1057, 1249),
    "extra": (1978, 1979, 1983, 1984, 1985, 1986, 1988, 1994, 2004, 2005, 2007, 2010, 2011, 2012, 2027, 2028, 2029)
    + (2030, 2031, 2034, 2311, 2313, 2315, 2317, 2318, 2397),
}
PREFIX = {"train": "andrewmvd_", "crops": "cd7_m_", "extra": "darun18_"}


def number(name: str, prefix: str) -> int:
    """The number in a file's name, -1 for one of another prefix."""
    stem = name.rpartition(".")[0]
    return int(stem[len(prefix) :]) if stem.startswith(prefix) and stem[len(prefix) :].isdigit() else -1


def spread(names: list[str], most: int) -> list[str]:
    """At most `most` of them, evenly spread: neighbours in a video look alike."""
    return [names[i * len(names) // most] for i in range(most)] if len(names) > most else names


def lists(data: Path) -> dict[str, dict[str, list[str]]]:
    """{"large", "incorrect", "not_trained_on": {folder: names}}; the last holds the first two."""
    known = {f: sorted(p.name for p in leak.images_of(data / f)) for f in ("train", "crops", "extra", "extra2")}
    large: dict[str, set[str]] = {}
    out: dict[str, set[str]] = {f: set() for f in known}
    for folder, prefix, first, last, most, _ in LARGE:
        names = [n for n in known[folder] if first <= number(n, prefix) <= last]
        large.setdefault(folder, set()).update(spread(names, most))
        out[folder].update(names)
    for folder, prefix, first, last in NOT_TRAINED_ON:
        out[folder].update(n for n in known[folder] if first <= number(n, prefix) <= last)
    incorrect = {f: [n for n in known[f] if number(n, PREFIX[f]) in numbers] for f, numbers in INCORRECT.items()}
    for folder, names in incorrect.items():
        out[folder].update(names)
    judges = [data / f / "images" / n for f in out for n in sorted(out[f])]
    for folder, names in known.items():
        rest = [data / folder / "images" / n for n in names if n not in out[folder]]
        out[folder].update(found.image.name for found in leak.leaks(rest, judges))
    return {
        "large": {f: sorted(names) for f, names in sorted(large.items())},
        "incorrect": {f: sorted(names) for f, names in sorted(incorrect.items())},
        "not_trained_on": {f: sorted(names) for f, names in sorted(out.items())},
    }


def write_split(data: Path, target: Path, chosen: Mapping[str, Iterable[str]]) -> int:
    """A split folder whose images are links to those of `data`; the number of its images."""
    (target / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for folder, names in chosen.items():
        document = json.loads((data / folder / "annotations.json").read_text(encoding="utf-8"))
        wanted = set(names)
        for entry in document["images"]:
            name = Path(entry["file_name"]).name
            if name not in wanted:
                continue
            number_here = len(images) + 1
            annotations += [
                {**a, "id": len(annotations) + k + 1, "image_id": number_here}
                for k, a in enumerate(a for a in document["annotations"] if a["image_id"] == entry["id"])
            ]
            images.append({**entry, "id": number_here, "file_name": f"images/{folder}_{name}"})
            link = target / "images" / f"{folder}_{name}"
            if not link.exists():
                os.symlink((data / folder / entry["file_name"]).resolve(), link)
        categories = document["categories"]
    files.write_json(
        str(target / "annotations.json"), {"images": images, "annotations": annotations, "categories": categories}
    )
    return len(images)


def main(argv: list[str] | None = None) -> None:
    """Write the list, and the splits where they are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", type=Path, help="write the splits large/ and incorrect/ below this folder")
    args = parser.parse_args(argv)
    found = lists(args.data)
    files.write_text(str(HELD_OUT), json.dumps(found, indent=0) + "\n")
    for name, folders in found.items():
        print(name, {f: len(names) for f, names in folders.items()})
    if args.out:
        val = [p.name for p in leak.images_of(args.data / "val")]
        print(write_split(args.data, args.out / "large", found["large"]), "images in", args.out / "large")
        chosen = {**found["incorrect"], "val": val}
        print(write_split(args.data, args.out / "incorrect", chosen), "images in", args.out / "incorrect")


if __name__ == "__main__":
    main()
