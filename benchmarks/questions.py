"""Three questions answered with committed figures: the tables and verdicts of the pages beside this file.

    python -m benchmarks.questions        (part of `make figures`)

int8.md: does int8 pay on each target; pruned_or_small.md: pruned from a large model or trained small; methods.md: which
of the usual methods were worth it. Each page says in words what does not change; every figure and verdict on it stands
between marks and comes from benchmarks/results/. A test fails when they differ.
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks.readme_table import ROOT, filled, markdown, points, read
from jetson import files
from pipeline import targets

PAGES = ("int8.md", "pruned_or_small.md", "methods.md")
MISSING = "Not measured yet.\n"
CLOSE = 1.0  # points of mAP50 that one seed says nothing about


def ms(text: str) -> Any:
    return f"{float(text):.2f}" if text else "–"


def times(text: str) -> Any:
    return f"{float(text):.2f}" if text else "–"


def cpu_of(machine: Any) -> str:
    """What distinguishes the machines of a table: processor and vector units."""
    name, flags = (machine.split("; ") + [""])[:2]
    return f"{name} ({flags})"


# Does int8 pay?


def int8_targets() -> Any:
    """What each target's hardware does natively, from the target table."""
    rows = []
    for target in targets.TARGETS.values():
        if not target.is_jetson:
            continue
        rates = target.peak_flops
        gain = (
            f"x {rates['int8'] / rates['fp16']:.1f} at most"
            if "int8" in rates
            else "no: " + (target.slow_precision_reason or "no such instructions")
        )
        rows.append([target.title, str(target.compute_capability), ", ".join(target.fast_precisions), gain])
    return markdown(["target", "compute capability", "fast precisions", "int8 over fp16, by the data sheet"], rows)


def int8_cpu() -> Any:
    """int8 against fp32 on the processors that were measured, and what it costs in AP."""
    rows = [row for row in read("int8_shape") if row["form"] == "int8-cpu (as shipped)"]
    if not rows:
        return MISSING
    text = markdown(
        ["processor, ONNX Runtime, 1 thread", "input", "int8 ms", "times as fast", "bytes, ratio"],
        [
            [
                cpu_of(row["machine"]),
                row["input_wh"],
                ms(row["cpu_ms_p50"]),
                times(row["times_faster_p50"]),
                f"{int(row['bytes']) / _fp32_bytes(row):.2f}",
            ]
            for row in rows
        ],
    )
    out = []
    for machine in dict.fromkeys(cpu_of(row["machine"]) for row in rows):
        found = [float(row["times_faster_p50"]) for row in rows if cpu_of(row["machine"]) == machine]
        verdict = "it pays" if min(found) >= 1.1 else "it does not pay in time"
        span = " to ".join(dict.fromkeys(f"{value:.1f}" for value in (min(found), max(found))))
        out.append(f"- {machine}: {span} times as fast as fp32: {verdict}.")
    return text + "\n" + "\n".join(out) + "\n"


def _fp32_bytes(row: dict[str, Any]) -> Any:
    return next(
        int(r["bytes"])
        for r in read("int8_shape")
        if r["form"] == "fp32" and r["machine"] == row["machine"] and r["input_wh"] == row["input_wh"]
    )


def int8_litert() -> Any:
    rows = [row for row in read("engines") if row["runtime"] == "litert" and row["system"] != "AIZOO"]
    pairs = []
    for row in rows:
        if row["precision"] != "int8":
            continue
        base = next((r for r in rows if r["precision"] == "fp32" and r["threads"] == row["threads"]), None)
        if base:
            ratio = float(base["cpu_ratio"]) / float(row["cpu_ratio"])
            pairs.append(
                [
                    cpu_of(row["machine"]),
                    row["input_wh"],
                    row["threads"],
                    ms(row["cpu_ms"]),
                    f"{ratio:.2f}",
                    points(row["map50"]),
                    points(base["map50"]),
                ]
            )
    if not pairs:
        return MISSING
    text = markdown(
        ["processor, LiteRT", "input", "threads", "int8 CPU ms", "times as fast as fp32", "mAP50", "mAP50 of fp32"],
        pairs,
    )
    return text + "\nLiteRT's int8 %s here.\n" % (
        "pays" if min(float(p[4]) for p in pairs) >= 1.1 else "does not pay in time"
    )


def int8_ap() -> Any:
    """What int8 costs in AP, size by size."""
    rows = [row for row in read("detector") if row["split"] == "test"] or read("detector")
    lines, differences = [], []
    for row in rows:
        if row["precision"] != "int8-cpu":
            continue
        base = next(
            (
                r
                for r in rows
                if r["precision"] == "fp32" and (r["model"], r["input_wh"]) == (row["model"], row["input_wh"])
            ),
            None,
        )
        if base:
            differences.append(float(row["map50"]) - float(base["map50"]))
            lines.append(
                [row["model"], row["input_wh"], points(base["map50"]), points(row["map50"]), f"{differences[-1]:+.1f}"]
            )
    if not lines:
        return MISSING
    text = markdown(["model", "input", "mAP50 fp32", "mAP50 int8", "difference"], lines)
    least, most, mean = max(0.0, -max(differences)), -min(differences), -sum(differences) / len(differences)
    return (
        f"{text}\n{int(rows[0]['images'])} photographs ({rows[0]['split']}/). int8 costs between {least:.1f} and "
        f"{most:.1f} points of mAP50, {mean:.1f} on average.\n"
    )


# Pruned from a large model, or trained small?


def pruned_tuned() -> Any:
    """Every pruning that was fine-tuned, and what it was before."""
    rows = [row for row in read("pruning") if row["kind"] == "channels" and row["map50_tuned"]]
    whole: Any = next((row for row in read("pruning") if row["kind"] == "unpruned"), None)
    if not rows:
        return MISSING
    rows.sort(key=lambda row: (-float(row["macs_share"]), row["importance"]))
    text = markdown(
        [
            "importance",
            "MACs left",
            "images of fine-tuning",
            "mAP50 before",
            "mAP50 after",
            "against unpruned",
            "fp32 time, ratio",
            "Nano fp16 ms, predicted",
        ],
        [
            [
                row["importance"],
                f"{100 * float(row['macs_share']):.0f} %",
                row["tuning_images"] or "–",
                points(row["map50_untuned"]),
                points(row["map50_tuned"]),
                f"{float(row['map50_tuned']) - float(whole['map50_untuned']):+.1f}",
                times(row["ort_fp32_ratio"]),
                ms(row["nano_fp16_predicted_ms"]),
            ]
            for row in rows
        ],
    )
    return text + "\nUnpruned: mAP50 {} on {}/ at {}, {} ms predicted. {}.\n".format(
        points(whole["map50_untuned"]),
        whole["split"],
        whole["input_wh"],
        ms(whole["nano_fp16_predicted_ms"]),
        whole["machine"],
    )


def pruned_beside() -> Any:
    """Networks of like cost, pruned and trained small, of one run (kinds `pruned` and `trained`), and the verdict."""
    every = read("pruning")
    rows = [row for row in every if row["kind"] in ("unpruned", "pruned", "trained")]
    pruned, small = ([row for row in rows if row["kind"] == kind] for kind in ("pruned", "trained"))
    if not pruned or not small:
        lack = ["a pruned network after its full fine-tuning"] * (not pruned) + ["a network that was trained small"] * (
            not small
        )
        return (
            "**Not decided yet:** the table has no row for {}. The fine-tunings below are too short to tell.\n".format(
                " nor for ".join(lack)
            )
        )
    text = markdown(
        [
            "network",
            "made by",
            "MACs left",
            "parameters",
            "images of its training",
            "minutes",
            "mAP50, mean of 320 to 640",
            "at " + rows[0]["input_wh"],
            "fp32 time, ratio",
            "Nano fp16 ms, predicted",
        ],
        [
            [
                row["importance"] or "unpruned",
                {"pruned": "pruning", "trained": "training", "unpruned": "training"}[row["kind"]],
                f"{100 * float(row['macs_share']):.0f} %",
                row["parameters"],
                row["tuning_images"] or "–",
                f"{float(row['tuning_minutes']):.0f}" if row["tuning_minutes"] else "–",
                points(row["map50_sizes"]),
                points(row["map50_tuned"] or row["map50_untuned"]),
                times(row["ort_fp32_ratio"]),
                ms(row["nano_fp16_predicted_ms"]),
            ]
            for row in rows
        ],
    )
    lines = []
    for own in pruned:
        # A network that saw more images is no control.
        equal = [row for row in small if row["tuning_images"] == own["tuning_images"]]
        if not equal:
            continue
        other = min(equal, key=lambda row: abs(float(row["macs_share"]) - float(own["macs_share"])))
        gap = float(own["map50_sizes"]) - float(other["map50_sizes"])
        word = "is better" if gap >= CLOSE else "is worse" if gap <= -CLOSE else "is as good, within a point"
        lines.append(
            "- {}, pruned to {:.0f} % of the MACs, {} than {}, trained small with {:.0f} %: {:+.1f} points.".format(
                own["importance"],
                100 * float(own["macs_share"]),
                word,
                other["importance"],
                100 * float(other["macs_share"]),
                gap,
            )
        )
    return text + "\n" + "\n".join(lines).replace("within a point than", "within a point, as") + "\n"


def pruned_magnitude() -> Any:
    rows = [row for row in read("pruning") if row["kind"] == "magnitude"]
    whole: Any = next((row for row in read("pruning") if row["kind"] == "unpruned"), None)
    if not rows:
        return MISSING
    return markdown(
        ["share of weights set to zero", "mAP50", "fp32 time, ratio", "compressed bytes, ratio"],
        [
            [
                f"{100 * float(row['ratio']):.0f} %",
                points(row["map50_untuned"]),
                times(row["ort_fp32_ratio"]),
                f"{int(row['onnx_bytes_zlib']) / int(whole['onnx_bytes_zlib']):.2f}",
            ]
            for row in rows
        ],
    )


# Which methods were worth it?


def methods_training() -> Any:
    """The ablation, a line for each choice that was trained, and what was not."""
    from benchmarks.ablation import choices

    rows = read("detector_ablation")
    known = list(dict.fromkeys(row.choice for model in ("s", "n") for row in choices(model)))
    if not rows:
        return (
            "**Not measured yet:** benchmarks/results/detector_ablation.csv has no rows. What it will hold: {} "
            "(`python -m benchmarks.ablation`).\n".format(", ".join(known[1:]))
        )
    out = []
    for model, images in dict.fromkeys((row["model"], row["images"]) for row in rows):
        own = [row for row in rows if (row["model"], row["images"]) == (model, images)]
        lines: list[Any] = []
        verdicts: dict[str, Any] = {}
        plain = [float(row["map50_416"]) for row in own if row["choice"] == "baseline"]
        close = max(CLOSE, max(plain) - min(plain)) if plain else CLOSE  # seeds alone move it by as much
        for choice, value in dict.fromkeys((row["choice"], row["value"]) for row in own):
            seeds = [row for row in own if (row["choice"], row["value"]) == (choice, value)]
            change = sum(float(row["difference"]) for row in seeds) / len(seeds)
            word = (
                "–"
                if choice == "baseline"
                else "better"
                if change >= close
                else "worse"
                if change <= -close
                else "no difference to be seen"
            )
            verdicts.setdefault(word, []).append(f"{choice} {value}")
            lines.append(
                [
                    choice,
                    value,
                    str(len(seeds)),
                    _mean(seeds, "map50_320"),
                    _mean(seeds, "map50_416"),
                    _mean(seeds, "with_mask"),
                    _mean(seeds, "without_mask"),
                    "–" if choice == "baseline" else f"{change:+.1f}",
                    word,
                ]
            )
        out.append(f"Model `{model}`, {images} images a training, {cpu_of(own[0]['machine'])}:\n\n")
        out.append(
            markdown(
                ["choice", "value", "seeds", "mAP50 at 320", "at 416", "mask", "no mask", "difference", "verdict"],
                lines,
            )
            + "\n"
        )
        for word in ("better", "worse", "no difference to be seen"):
            if word in verdicts:
                out.append(
                    "- {}: {}.\n".format(
                        word.capitalize() + " than the baseline" * (word[0] != "n"), "; ".join(verdicts[word])
                    )
                )
        if close > CLOSE:
            out.append(
                f"- The baseline's own seeds differ by {close:.1f} points: less than that is no difference to be "
                "seen.\n"
            )
        out.append("\n")
    missing = [name for name in known if name not in {row["choice"] for row in rows}]
    if missing:
        out.append(f"Not measured: {', '.join(missing)}.\n")
    return "".join(out).rstrip("\n") + "\n"


def _mean(rows: list[dict[str, Any]], column: Any) -> Any:
    values = [float(row[column]) for row in rows if row[column]]
    return points(str(sum(values) / len(values))) if values else "–"


def methods_size() -> Any:
    """A smaller input of the same network: what it saves and costs."""
    rows = [row for row in read("detector") if row["split"] == "test" and row["precision"] == "fp32"]
    if not rows:
        return MISSING
    out = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = sorted((row for row in rows if row["model"] == model), key=lambda row: -int(row["macs"]))
        first = own[0]
        out += [
            [
                model,
                row["input_wh"],
                points(row["map50"]),
                f"{float(row['map50']) - float(first['map50']):+.1f}",
                points(row["small"]),
                f"x {int(row['macs']) / int(first['macs']):.2f}",
            ]
            for row in own
        ]
    return markdown(["model", "input", "mAP50", "against the largest", "< 32 px", "MACs"], out)


def methods_deployed() -> Any:
    """What is done to the trained network, in one table, each with its price."""
    out = []
    pruning = read("pruning")
    whole: Any = next((row for row in pruning if row["kind"] == "unpruned"), None)
    for row in pruning:
        best = row["map50_tuned"]
        if whole and best and (row["kind"] == "pruned" or row["kind"] == "channels" and row["importance"] == "taylor"):
            name = "channel pruning, {}, to {:.0f} % of the MACs, {} images of fine-tuning".format(
                row["importance"],
                100 * float(row["macs_share"]),
                row["tuning_images"] or "?",
            )
            out.append(
                [
                    name,
                    f"x {1 / float(row['ort_fp32_ratio']):.2f}" if row["ort_fp32_ratio"] else "–",
                    f"{float(best) - float(whole['map50_untuned']):+.1f}",
                    f"{row['split']}/ at {row['input_wh']}",
                ]
            )
        if whole and row["kind"] == "magnitude":
            out.append(
                [
                    f"magnitude pruning, {100 * float(row['ratio']):.0f} % zeros, no fine-tuning",
                    f"x {1 / float(row['ort_fp32_ratio']):.2f}",
                    f"{float(row['map50_untuned']) - float(whole['map50_untuned']):+.1f}",
                    f"{row['split']}/ at {row['input_wh']}",
                ]
            )
    shapes = [row for row in read("int8_shape") if row["form"] == "int8-cpu (as shipped)"]
    # int8_shape.csv times the first model of the bundle.
    first = read("detector")[0]["model"] if shapes else ""
    detector = {
        (row["split"], row["precision"], row["input_wh"]): row for row in read("detector") if row["model"] == first
    }
    for row in shapes:
        pair: list[Any] = [detector.get(("val", name, row["input_wh"])) for name in ("int8-cpu", "fp32")]
        if all(pair):
            out.append(
                [
                    f"int8 on {cpu_of(row['machine'])}",
                    "x " + times(row["times_faster_p50"]),
                    f"{float(pair[0]['map50']) - float(pair[1]['map50']):+.1f}",
                    "val/ at " + row["input_wh"],
                ]
            )
    return markdown(["method", "speed, CPU", "points of mAP50", "where"], out) if out else MISSING


TABLES = {
    "int8-targets": int8_targets,
    "int8-cpu": int8_cpu,
    "int8-litert": int8_litert,
    "int8-ap": int8_ap,
    "pruned-tuned": pruned_tuned,
    "pruned-beside": pruned_beside,
    "pruned-magnitude": pruned_magnitude,
    "methods-training": methods_training,
    "methods-size": methods_size,
    "methods-deployed": methods_deployed,
}


def main() -> int:
    for name in PAGES:
        path = Path(ROOT) / "benchmarks" / name
        before = path.read_text(encoding="utf-8")
        after = filled(before, str(path), TABLES)
        if after != before:
            files.write_text(str(path), after)
        print(f"{name}: {'changed' if after != before else 'as before'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
