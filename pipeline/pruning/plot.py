"""The picture of a sensitivity scan."""

import os
from typing import Any

from jetson import files
from jetson.errors import JetmaskError


def plot_scan(found: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write scan()'s result as an SVG: a line per group, AP against the share of channels dropped."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    if not found["groups"]:
        raise JetmaskError("nothing was scanned", expected="groups that may be pruned")
    for number, (name, row) in enumerate(found["groups"].items()):
        points = sorted((float(ratio), value) for ratio, value in row.items())
        axes.plot(
            [0, *[r for r, _ in points]],
            [found["baseline"], *[v for _, v in points]],
            linewidth=1.2,
            linestyle=("-", "--", ":")[number // 10 % 3],
            marker=".",
            label=name,
        )
    axes.set(xlabel="share of the group's channels dropped (no fine-tuning)", ylabel="val mAP50, points")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    with files.aside(str(path)) as aside:
        figure.savefig(aside, format="svg", metadata={"Date": None})
