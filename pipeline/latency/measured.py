"""A prediction beside what was measured of the same model: `jetmask predict MODEL --measured FILE.json`.

The file is what `jetmask bench` wrote: of a device (`--device USER@HOST --out`), or of a trtexec log
(`--import-trtexec LOG --out`), whose profile also gives the time of each layer.
"""

import os
from typing import Any

from jetson import files
from jetson.cli import table
from jetson.errors import BadInput, UsageError
from pipeline.latency.roofline import Prediction


def beside(prediction: Prediction, path: str, model: str) -> dict[str, Any]:
    """What `path` has measured of `model` at the prediction's precision and size.

    {"machine", "row", "p50_ms", "off_percent", "inside", "layers": [{"name", "ms", "predicted_ms"}]}: `layers` only
    where a profile was imported, with predicted_ms None for what the model does not know. UsageError where no row fits.
    """
    document = files.read_json(path)
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput("not a file of measurements", path, "a file that `jetmask bench --out FILE.json` wrote")
    size = list(prediction.input_wh) if prediction.input_wh else None
    names = (os.path.basename(model), os.path.getsize(model))
    fitting = [
        row
        for row in rows
        if row.get("infer_ms")
        and row.get("precision") == prediction.precision
        and row.get("input_wh") == size
        and row.get("runtime") == _runtime(prediction)
        and (row.get("model") == names[0] or row.get("bytes") == names[1])
        and row.get("batch") in (None, 1)
    ]
    if not fitting:
        have = sorted(
            {
                f"{row.get('model') or row.get('variant')} {row.get('precision')} {_at(row.get('input_wh'))}"
                for row in rows
                if row.get("infer_ms")
            }
        )
        raise UsageError(
            f"no measurement of {names[0]} with {prediction.precision} at {_at(size)}",
            path,
            "one of " + "; ".join(have) if have else "a measured row",
        )
    row = fitting[-1]
    try:
        real = float(row["infer_ms"]["p50"])
    except (KeyError, TypeError, ValueError):
        raise BadInput("a measured row without its median", path, "infer_ms with p50") from None
    low, high = prediction.low_ms, prediction.high_ms
    board = document.get("board") or {}
    return {
        "machine": str(board.get("model") or board.get("machine") or "an unnamed device"),
        "row": str(row.get("variant")),
        "p50_ms": real,
        "off_percent": round(100 * (prediction.latency_ms / real - 1), 1) if real else None,
        "inside": None if low is None or high is None else low <= real <= high,
        "layers": layers(prediction, row.get("layers") or []),
    }


def _runtime(prediction: Prediction) -> str:
    return "onnxruntime" if prediction.target == "this-machine" else "tensorrt"


def _at(input_wh: Any) -> str:
    return "x".join(map(str, input_wh)) if isinstance(input_wh, list) else str(input_wh)


def layers(prediction: Prediction, profile: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a profile with the predicted time of what TensorRT fused into each; matched by the nodes' names."""
    first = {layer.name.split(" + ")[0].strip(): layer.ms for layer in prediction.layers}
    out = []
    for row in profile:
        parts = {part.strip() for part in str(row.get("name")).split(" + ")}
        known = [name for name in first if name in parts]
        out.append(
            {
                "name": str(row.get("name")),
                "ms": row.get("median_ms") or row.get("average_ms"),
                "predicted_ms": round(sum(first[name] for name in known), 4) if known else None,
            }
        )
    return out


def text(found: dict[str, Any], with_layers: bool) -> str:
    """For people: one line, and the layers."""
    inside = {True: "inside its interval", False: "outside its interval", None: "error unknown"}[found["inside"]]
    off = "" if found["off_percent"] is None else f"; the prediction is off by {found['off_percent']:+.1f} %, {inside}"
    lines = [f"measured {found['p50_ms']:.2f} ms on {found['machine']} ({found['row']}){off}"]
    if with_layers and found["layers"]:
        cells = [
            [
                row["name"][:58],
                "-" if row["ms"] is None else f"{row['ms']:.3f}",
                "-" if row["predicted_ms"] is None else f"{row['predicted_ms']:.3f}",
            ]
            for row in found["layers"]
        ]
        lines += ["", table(["layer, as TensorRT fused it", "measured ms", "predicted ms"], cells)]
    return "\n".join(lines)
