"""The tables of README and docs/results.md, written from the committed CSV files: `make figures`. A test fails when
they differ.

Between <!-- figures: NAME --> and <!-- end --> stands what the function of that name makes of benchmarks/results/.
"""

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path

from jetson import files
from jetson.bundle import manifest
from jetson.errors import BadInput, JetmaskError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BUNDLE = ROOT / "jetson" / "models"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
Row = dict[str, str]  # of a CSV of results/: {column: text}
MARK = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def read(name: str) -> list[Row]:
    """The rows of a CSV of results/; none when it has not been measured yet."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table; the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def points(text: str) -> str:
    return f"{float(text):.1f}" if text else "–"


def megabytes(text: str) -> str:
    return f"{int(text) / 1e6:.2f} MB"


def millions(text: str) -> str:
    return f"{int(text) / 1e6:.0f} M"


def detector() -> str:
    """AP of what ships, on test/ where it was measured there."""
    rows = read("detector")
    rows = [row for row in rows if row["split"] == "test"] or rows
    if not rows:
        return "Not measured yet.\n"
    eight = {(row["model"], row["input_wh"]): row for row in rows if row["precision"] == "int8-cpu"}
    rows = [row for row in rows if row["precision"] == "fp32"]

    def line(row: Row) -> list[str]:
        other = eight.get((row["model"], row["input_wh"]))  # none where it lost more than a bundle allows
        return [
            f"{row['model']}, {row['input_wh']}",
            points(row["map50"]),
            points(other["map50"]) if other else "–",
            *(points(row[name]) for name in ("with_mask", "without_mask", "small", "medium", "large")),
            megabytes(row["bytes"]),
            megabytes(other["bytes"]) if other else "–",
            millions(row["macs"]),
        ]

    table = markdown(
        [
            "model, input",
            "mAP50",
            "int8-cpu",
            "mask",
            "no mask",
            "< 32 px",
            "32–96 px",
            "> 96 px",
            "file",
            "int8-cpu file",
            "MACs",
        ],
        [line(row) for row in rows],
    )
    first = rows[0]
    return (
        table + f"\nTwo-class mAP50 in points on {first['images']} photographs ({first['split']}/), fp32 and "
        f"int8-cpu (– where it lost too much to ship), measured with ONNX Runtime through the detector that runs "
        f"on the device; the columns between are of fp32. {first['machine']}.\n"
    )


def peers() -> str:
    """Us against AIZOO, as ratios of one run."""
    rows = read("peers")
    if not rows:
        return "Not measured yet.\n"
    table = markdown(
        ["detector", "mAP50", "< 32 px", "time, ratio", "file, ratio", "MACs, ratio"],
        [
            [
                f"{row['system']} {row['precision']}, {row['input_wh']}",
                points(row["map50"]),
                points(row["small"]),
                f"{float(row['cpu_ratio']):.2f}",
                f"{float(row['size_ratio']):.2f}",
                f"{float(row['macs_ratio']):.2f}",
            ]
            for row in rows
        ],
    )
    first = rows[0]
    return (
        table + f"\nSame {first['images']} photographs, same machine, one run, {first['threads']} thread; ratios "
        f"are to AIZOO's. Time is CPU time for a whole image. {first['machine']}.\n"
    )


def engines() -> str:
    """Every precision and runtime, one thread and two."""
    rows = read("engines")
    if not rows:
        return "Not measured yet.\n"
    pairs: dict[tuple, dict] = {}
    for row in rows:
        pairs.setdefault((row["system"], row["precision"], row["runtime"], row["input_wh"]), {})[row["threads"]] = row
    table = markdown(
        ["engine", "mAP50", "ms, 1 thread", "ms, 2 threads", "file"],
        [
            [
                f"{system} {precision}, {runtime}, {wh}",
                points(by["1"]["map50"]),
                *(f"{float(by[n]['infer_p50_ms']):.1f}" if n in by else "–" for n in ("1", "2")),
                megabytes(by["1"]["bytes"]),
            ]
            for (system, precision, runtime, wh), by in pairs.items()
            if "1" in by
        ],
    )
    first = rows[0]
    return (
        table + f"\nInference alone, median of {first['images']} photographs taken in turns in one run. "
        f"{first['machine']}; load at the start {first['load']}.\n"
    )


def prediction() -> str:
    """How far off the latency model is."""
    rows, here = read("latency_model"), read("this_machine_fp32")
    engine = [row for row in rows if row["kind"] == "engine"]
    if not engine:
        return "Not measured yet.\n"

    def mean(lines: list[Row], column: str) -> str:
        values = [abs(float(line[column])) for line in lines]
        return f"{sum(values) / len(values):.1f} %"

    lines = [
        [
            "Jetson Nano, published rows, each left out in turn",
            str(len(engine)),
            mean(engine, "leave_one_out_error_pct"),
        ],
        ["the same, its whole source left out", str(len(engine)), mean(engine, "leave_source_out_error_pct")],
    ]
    if here:
        lines.append(["this machine, networks that the calibration never saw", str(len(here)), mean(here, "error_pct")])
    return markdown(["latency model against measurements", "rows", "mean absolute error"], lines)


def short() -> str:
    """The smallest and the largest size that ships of each model, beside the peer."""
    rows = [row for row in read("detector") if row["split"] == "test" and row["precision"] == "fp32"]
    if not rows:
        return "Not measured yet.\n"
    lines = []
    peer = [row for row in read("peers") if row["system"] == "AIZOO"]
    if peer:
        lines.append(
            [
                f"AIZOO, {peer[0]['input_wh']} (peer)",
                points(peer[0]["map50"]),
                points(peer[0]["small"]),
                millions(peer[0]["macs"]),
                megabytes(peer[0]["bytes"]),
            ]
        )
    shipped = {(v.model, "{}x{}".format(*v.input_wh)) for v in manifest.load(str(BUNDLE)).variants}
    for row in rows:
        if row["input_wh"] in ("320x192", "640x384") and (row["model"], row["input_wh"]) in shipped:
            lines.append(
                [
                    f"{row['model']}, {row['input_wh']}",
                    points(row["map50"]),
                    points(row["small"]),
                    millions(row["macs"]),
                    megabytes(row["bytes"]),
                ]
            )
    return markdown(["model, input", "mAP50", "faces < 32 px", "MACs", "file"], lines[:8]) + (
        "\nTwo-class mAP50 in points on 209 photographs that training never saw, fp32.\n"
    )


TABLES: dict[str, Callable[[], str]] = {
    "short": short,
    "detector": detector,
    "peers": peers,
    "engines": engines,
    "prediction": prediction,
}


def filled(text: str, where: str = "README.md", tables: dict[str, Callable[[], str]] = TABLES) -> str:
    """`text` with every marked table made anew."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(2)
        if name not in tables:
            raise BadInput(f"no table is called {name!r}", where, "one of " + ", ".join(tables))
        return match.group(1) + tables[name]() + match.group(4)

    return MARK.sub(replace, text)


def main() -> int:
    """Write the tables of each page anew."""
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        try:
            after = filled(before, str(path))
        except JetmaskError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        if after != before:
            files.write_text(str(path), after)
        print(f"{path.name}: {len(MARK.findall(before))} tables, {'changed' if after != before else 'as before'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
