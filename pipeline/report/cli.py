"""`jetmask report`: one run as one self-contained HTML file, beside the same figures as JSON and CSV."""

import argparse
import csv
import difflib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from jetson import files
from jetson.errors import BadInput
from pipeline.paths import made
from pipeline.report.rows import COLUMNS, device_rows, machine_of, table_rows

# Everything a report can hold, with the type of each. All of it is optional: what is missing has no section.
SECTIONS: dict[str, type | tuple[type, ...]] = {
    "title": str,  # of the page
    "name": str,  # of the run
    "created": str,  # ISO 8601
    "summary": (str, list),  # a sentence or several
    "warnings": list,  # sentences shown on top
    "data": dict,  # {"kind": "photographs" | "drawn", "split", "images", "note", ...}; drawn is said beside every AP
    "machine": str,  # that measured the variants, where it is another than the one that writes the page
    "facts": list,  # [[label, value], ...]: headline figures
    "variants": list,  # what `jetmask evaluate` gives for each, with bytes, macs and fps added: measured here
    # [{"name", "target", "precision", "input_wh", "map50", "latency_ms", "low_ms", "high_ms", "bytes"}]
    "predicted": list,
    "devices": list,  # what `jetmask bench --device ... --out` wrote for each device, with its predictions
    "stages": list,  # [{"name", "map50", "macs", "bytes", "latency_ms", "minutes", "note"}] in the order they ran
    "curves": list,  # [{"name", "rows"}], rows as `train.fit` returns them
    "layers": list,  # `latency.Prediction.as_json()` of one or more models, "title" added
    "accuracy": dict,  # {"note", "rows": [{"name", "ap", "low", "high", "boxes"}]}: AP per class and size, 95 % bounds
    # {"note", "names", "counts"}: boxes, rows of truth and columns of what is shown; the last of each is none
    "confusion": dict,
    "classes": dict,  # {class: role} where they are not the mask classes
    "config": dict,  # the training's, by sections
    "pruning": dict,  # {"note", "before": {...}, "after": {...}, "channels": [{"layer", "before", "after"}]}
    # [{"name", "method", "macs_share", "before", "map50", "time_ratio", "images", "note"}]: prunings compared; before
    # and map50 without and with fine-tuning, method groups the lines of the figure
    "prunings": list,
    "scan": dict,  # what `Pruning.scan` gives: {"baseline", "groups": {name: {share dropped: map50}}}
    # [{"network", "device", "precision", "measured_ms", "predicted_ms"}]: predictions held against measurements
    "agreement": list,
    # [{"layer", "drop"} or {"layer", "snr_db"}]: when this layer alone is int8, points of mAP50 lost, or the worst
    # head's signal-to-noise ratio
    "sensitivity": list,
    "ablations": list,  # [{"name", "map50", "delta", "note"}]
    "comparisons": list,  # [{"title", "note", "rows": [{column: value}, ...]}]: optimizers, learning rates, ...
    "sweep": dict,  # {"target", "note", "trials": [{"number", "map50", "latency_ms", "bytes", "state", "params"}]}
    "detections": list,  # [{"file", "caption", "alt", "group"}]; see pipeline/report/contact_sheet.py
    "live": dict,  # {label: value}: the runner's measured run
    "environment": dict,  # {label: value}
    "commands": list,  # [{"title", "command"}]: how to get this again
    "next": list,  # [{"title", "command"}]
}


def write(folder: str | os.PathLike, data: dict[str, Any]) -> str:
    """Write report.json, report.csv and report.html into `folder`; returns the path of the HTML.

    `data` holds any of SECTIONS; numbers are plain: AP in points, ms, bytes, multiply-adds. Pictures are named by paths
    relative to `folder` and end up inside the HTML. BadInput for a key or a type that is not in SECTIONS.
    """
    folder = Path(folder)
    check(data, str(folder / "report.json"))
    made(folder)
    data = json.loads(json.dumps(data, default=_plain))
    files.write_json(str(folder / "report.json"), data)
    return render(folder, data)


def has_table(data: dict[str, Any]) -> bool:
    """Whether there are rows for report.csv."""
    return any(data.get(key) for key in ("variants", "predicted", "devices"))


def render(folder: Path, data: dict[str, Any]) -> str:
    """report.csv and report.html from data as report.json holds it."""
    from pipeline.report import page  # matplotlib takes a second to load

    if has_table(data):
        files.write_text(str(folder / "report.csv"), as_csv(data))
    path = str(folder / "report.html")
    files.write_text(path, page.page(data, folder, has_table(data)))
    return path


def check(data: Any, where: str) -> None:
    """BadInput when `data` is not what a report is made of."""
    if not isinstance(data, dict):
        raise BadInput(f"a report is an object, not {type(data).__name__}", where, "keys such as variants and stages")
    for key, value in data.items():
        if key not in SECTIONS:
            near = difflib.get_close_matches(key, SECTIONS, 1)
            raise BadInput(
                f"a report has no section {key!r}",
                where,
                "one of " + ", ".join(SECTIONS),
                f"did you mean {near[0]}?" if near else None,
            )
        if value is not None and not isinstance(value, SECTIONS[key]):
            wanted: Any = SECTIONS[key]
            kinds = wanted if isinstance(wanted, tuple) else (wanted,)
            raise BadInput(f"{key} is {type(value).__name__}", where, " or ".join(kind.__name__ for kind in kinds))
    for number, row in enumerate(data.get("facts") or ()):
        if not isinstance(row, list) or len(row) != 2:
            raise BadInput(f"facts[{number}] is {row!r}", where, "[label, value]")
    for key in (
        "variants",
        "predicted",
        "devices",
        "stages",
        "curves",
        "layers",
        "prunings",
        "agreement",
        "sensitivity",
        "ablations",
        "comparisons",
        "detections",
        "commands",
        "next",
    ):
        for number, row in enumerate(data.get(key) or ()):
            if not isinstance(row, dict):
                raise BadInput(f"{key}[{number}] is {type(row).__name__}", where, "an object")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a report cannot hold {type(value).__name__}")


def add_device(data: dict[str, Any], device: dict[str, Any], where: str) -> None:
    """Put a device's bench into a report, in the place of an earlier one of the same machine and bundle."""
    rows = device.get("rows") if isinstance(device, dict) else None
    if not isinstance(rows, list) or not all(map(_is_measurement, rows)):
        raise BadInput(
            "not measurements of a device",
            where,
            "a file that `jetmask bench --out` wrote",
            "jetmask bench --device USER@HOST --target nano --out FILE.json",
        )
    same = (machine_of(device), device.get("bundle"))
    data["devices"] = [old for old in data.get("devices") or () if (machine_of(old), old.get("bundle")) != same]
    data["devices"].append(device)


def _is_measurement(row: Any) -> bool:
    """Whether a row of a device's file has the shape that `jetmask bench` gives it."""

    def figures(key: str, *names: str, unknown: tuple = ()) -> bool:
        value = row.get(key)
        return (
            value is None
            or isinstance(value, dict)
            and all(isinstance(value.get(name), (int, float)) for name in names)
            and all(name in value and isinstance(value[name], (int, float, type(None))) for name in unknown)
        )

    return (
        isinstance(row, dict)
        and isinstance(row.get("variant"), str)
        and figures("ap")
        and figures("latency_ms", unknown=("p50",))
        and figures("infer_ms", unknown=("p50",))
        and figures("predicted", "latency_ms", "off_percent", unknown=("low_ms", "high_ms", "inside"))
    )


def as_csv(data: dict[str, Any]) -> str:
    handle = io.StringIO()
    writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table_rows(data) + [row for device in data.get("devices") or () for row in device_rows(device)]:
        writer.writerow({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    return handle.getvalue()


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask report`."""
    parser.description = (
        "Write report.html (one file, nothing loaded from elsewhere) from the folder of a training, a pruning, a sweep "
        "or a demo."
    )
    parser.epilog = "example: jetmask report runs/train\n         jetmask report runs/demo --device nano.json"
    parser.add_argument("run", help="the folder of a run")
    parser.add_argument("--data", metavar="DIR", help="the folder of the photographs, if they were moved since the run")
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="FILE.json",
        help="add the measurements of `jetmask bench --device USER@HOST --target nano --out "
        "FILE.json` beside the predictions",
    )
    parser.add_argument("--json", action="store_true", help="print the paths as JSON")


def command(args: argparse.Namespace) -> None:
    """Write the report of a folder."""
    from pipeline.report import folders  # matplotlib takes a second to load

    folder = Path(args.run)
    path = folder / "report.json" if folder.is_dir() else folder
    kind = folders.kind_of(folder) if folder.is_dir() else ""
    if kind:  # made anew: a training goes on
        made_of = folders.read(folder, kind, args.data)
        if path.is_file():  # what a device measured stays in it
            made_of["devices"] = files.read_json(str(path)).get("devices")
        write(folder, {key: value for key, value in made_of.items() if value is not None})
    if not path.is_file():
        raise BadInput(
            "nothing to report on",
            str(path),
            "the folder of a training, a pruning, a sweep or a demo",
            "check the path" if folder.exists() else "no such folder",
        )
    data = files.read_json(str(path))
    check(data, str(path))
    for measured in args.device:
        add_device(data, files.read_json(measured), measured)
    written = render(path.parent, data)
    if args.device:  # at last: what cannot be shown must not stay in the run's data
        files.write_json(str(path), data)
    if args.json:
        print(json.dumps({"report": written}))
    else:
        print(f"report  {written}")
