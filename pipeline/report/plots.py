"""The report's figures: matplotlib, as inline SVG in the page's colours, so that dark mode and print hold."""

from collections.abc import Sequence
from typing import Any

import matplotlib.patches
import matplotlib.ticker
from matplotlib.transforms import Bbox

from pipeline.choose.pareto import front
from pipeline.pages.figures import CARD, MARKS, QUIET, SERIES, label, svg


def by_device(points: Sequence[dict]) -> list[tuple[str, list[dict]]]:
    """The points of each device; figures of different devices do not beat each other."""
    devices = dict.fromkeys(point["device"] for point in points)
    return [(device, [point for point in points if point["device"] == device]) for device in devices]


def best(points: Sequence[dict], x: str) -> list[dict]:
    """The front of `points`, cheapest first."""
    return sorted((points[i] for i in front([(p[x], -p["ap"]) for p in points])), key=lambda p: (p[x], p["ap"]))


def trade_off(points: Sequence[dict], x: str, x_label: str, y_label: str, alternative: str, log: bool = False) -> str:
    """AP against a cost. A point: {name, group, device, ap, <x>, predicted, low, high}; fronts are drawn and named."""
    points = [point for point in points if point.get("ap") is not None and point.get(x) is not None]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        groups = list(dict.fromkeys(point["group"] for point in points))
        for number, group in enumerate(groups):
            colour, mark = SERIES[number % len(SERIES)], MARKS[number % len(MARKS)]
            for predicted in (False, True):
                part = [p for p in points if p["group"] == group and bool(p.get("predicted")) == predicted]
                if not part:
                    continue
                xs, ys = [p[x] for p in part], [p["ap"] for p in part]
                if predicted and x == "ms":
                    spans = [
                        (max(0, p[x] - p["low"]), max(0, p["high"] - p[x])) if p.get("low") is not None else (0, 0)
                        for p in part
                    ]
                    axes.errorbar(
                        xs, ys, xerr=list(zip(*spans, strict=True)), fmt="none", ecolor=colour, elinewidth=1, capsize=2
                    )
                axes.scatter(
                    xs,
                    ys,
                    s=34,
                    marker=mark,
                    edgecolors=colour,
                    linewidths=1.4,
                    zorder=3,
                    facecolors=CARD if predicted else colour,
                    label=label(group) + (" (predicted)" if predicted else ""),
                )
        names = []
        for number, (_, part) in enumerate(by_device(points)):
            kept = best(part, x)
            axes.step(
                [p[x] for p in kept],
                [p["ap"] for p in kept],
                where="post",
                color=QUIET,
                linewidth=1,
                linestyle=(0, (4, 3)),
                zorder=1,
                label=None if number else "front",
            )
            for p in kept:
                above = bool(number)  # names of the first device below its points, of the others above
                names.append(
                    axes.annotate(
                        label(p["name"]),
                        (p[x], p["ap"]),
                        xytext=(4, 6 if above else -10),
                        textcoords="offset points",
                        fontsize=6.5,
                        color=QUIET,
                    )
                )
        if log:
            axes.set_xscale("log")
            _plain_log(axes.xaxis)
        else:
            axes.set_xlim(left=0)
        axes.margins(x=0.2, y=0.15)
        axes.set(xlabel=x_label, ylabel=y_label)
        figure.legend(fontsize=7.5, loc="outside upper left", ncols=3)
        _part(figure, axes, names, [(p[x], p["ap"]) for p in points])

    return svg(draw, 5.2, 3.7, alternative)


def _plain_log(axis: Any) -> None:
    """Plain numbers on a logarithmic axis, some within a decade too: many figures span less than one."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _part(figure: Any, axes: Any, names: Any, marks: Any) -> None:
    """Move names off one another and off the marks; what finds no free place goes, the table below has it."""
    for name in names:
        name.set_in_layout(False)  # or each move would move the axes, and the names already placed
    figure.draw_without_rendering()  # once: a name's place follows from the axes', and a draw for each takes minutes
    placed = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform(marks)] if marks else []
    for name in names:
        sideways, height = name.xyann
        for offset in ((sideways, height), (sideways, -4 - height), (sideways, 2 * height), (-60, height)):
            name.xyann = offset
            box = name.get_window_extent().padded(1)
            if not any(box.overlaps(other) for other in placed) and box.x1 < figure.bbox.x1 and box.x0 > 0:
                placed.append(box)
                break
        else:
            name.remove()


def curves(series: Sequence[dict], alternative: str) -> str:
    """Training curves: {name, x, y, axis: "loss" | "ap"}; losses above, AP below, over the same epochs."""
    kinds = [kind for kind in ("loss", "ap") if any(s["axis"] == kind for s in series)]

    def draw(figure: Any) -> None:
        grid = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
        for axes, kind in zip(grid, kinds, strict=True):
            chosen = [s for s in series if s["axis"] == kind]
            for number, s in enumerate(chosen):
                many = len(s["x"]) > 30
                axes.plot(
                    s["x"],
                    s["y"],
                    color=SERIES[number % len(SERIES)],
                    linewidth=1.4,
                    marker=None if many else MARKS[number % len(MARKS)],
                    markersize=3.5,
                    label=label(s["name"]),
                )
            axes.set_ylabel("loss" if kind == "loss" else "mAP50, points")
            axes.legend(fontsize=7.5)
        grid[-1].set_xlabel("epoch")
        grid[-1].xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))

    return svg(draw, 5.2, 1.6 + 1.5 * len(kinds), alternative)


def lines(series: Sequence[dict], x_label: str, y_label: str, alternative: str, falling: bool = False) -> str:
    """Lines: {name, x, y, dashed, colour}; what has the same `colour` has the same colour and mark."""
    kinds = list(dict.fromkeys(s["colour"] for s in series))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for s in series:
            number = kinds.index(s["colour"])
            axes.plot(
                s["x"],
                s["y"],
                color=SERIES[number % len(SERIES)],
                marker=MARKS[number % len(MARKS)],
                markersize=4,
                linewidth=1 if s["dashed"] else 1.5,
                linestyle=(0, (4, 3)) if s["dashed"] else "-",
                markerfacecolor=CARD if s["dashed"] else None,
                label=label(s["name"]),
            )
        if falling:
            axes.invert_xaxis()
        axes.set(xlabel=x_label, ylabel=y_label)
        figure.legend(fontsize=7.5, loc="outside upper left", ncols=2)

    return svg(draw, 5.2, 3.4 + 0.12 * len(series), alternative)


def against(points: Sequence[dict], x_label: str, y_label: str, alternative: str) -> str:
    """Two figures for the same thing on logarithmic axes, with the line of agreement: {x, y, group}."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        ends = [min(min(p["x"], p["y"]) for p in points) / 1.3, max(max(p["x"], p["y"]) for p in points) * 1.3]
        axes.plot(ends, ends, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for number, group in enumerate(dict.fromkeys(p["group"] for p in points)):
            part = [p for p in points if p["group"] == group]
            axes.scatter(
                [p["x"] for p in part],
                [p["y"] for p in part],
                s=26,
                marker=MARKS[number % len(MARKS)],
                edgecolors=SERIES[number % len(SERIES)],
                facecolors="none",
                linewidths=1.4,
                label=label(group),
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            _plain_log(axis)
        axes.set(xlabel=x_label, ylabel=y_label, xlim=ends, ylim=ends)
        figure.legend(fontsize=7.5, loc="outside upper left", ncols=2)

    return svg(draw, 5.2, 3.9, alternative)


def bars(rows: Sequence[tuple], x_label: str, alternative: str, groups: Sequence[str] = (), form: str = ".3g") -> str:
    """Horizontal bars, first row on top: (label, value[, group]), or several values with `groups` naming them.

    A value of None leaves a gap.
    """
    paired = bool(groups) and isinstance(rows[0][1], (list, tuple))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        height = 0.8 / (len(groups) if paired else 1)
        names = list(dict.fromkeys(row[2] for row in rows)) if rows and len(rows[0]) > 2 else []
        top = max((v for row in rows for v in (row[1] if paired else [row[1]]) if v is not None), default=1)
        for line, row in enumerate(rows):
            values = row[1] if paired else [row[1]]
            for number, value in enumerate(values):
                if value is None:
                    continue
                colour = SERIES[(number if paired else names.index(row[2]) if names else 0) % len(SERIES)]
                y = line + (number - (len(values) - 1) / 2) * height if paired else line
                axes.barh(y, value, height=height * 0.92, color=colour)
                axes.text(
                    value + (0.01 * top if value >= 0 else -0.01 * top),
                    y,
                    format(value, form),
                    va="center",
                    ha="left" if value >= 0 else "right",
                    fontsize=7,
                    color=QUIET,
                )
        axes.set_yticks(range(len(rows)), [label(row[0]) for row in rows], fontsize=7.5)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.12, y=0.02)
        axes.set_xlabel(x_label)
        labels = list(groups) if paired else names
        if len(labels) > 1:
            handles = [
                matplotlib.patches.Patch(color=SERIES[n % len(SERIES)], label=label(name))
                for n, name in enumerate(labels)
            ]
            figure.legend(handles=handles, fontsize=7.5, loc="outside upper left", ncols=4)

    count = len(rows) * (len(groups) if paired else 1)
    return svg(draw, 5.2, min(9.0, 1.0 + (0.17 if paired else 0.21) * max(count, 3)), alternative)


def intervals(rows: Sequence[tuple[str, float, float | None, float | None]], x_label: str, alternative: str) -> str:
    """Horizontal bars with a line for the interval, first row on top: (label, value, low, high)."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for line, (_, value, low, high) in enumerate(rows):
            axes.barh(line, value, height=0.6, color=SERIES[0], alpha=0.5)
            if low is not None and high is not None:
                axes.plot([low, high], [line, line], color=QUIET, linewidth=1.6, marker="|", markersize=6)
            end = max(value, high or value)
            axes.text(end + 1.2, line, f"{value:.1f}", va="center", fontsize=7, color=QUIET)
        axes.set_yticks(range(len(rows)), [label(row[0]) for row in rows], fontsize=7.5)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=x_label, xlim=(0, 112))

    return svg(draw, 5.2, min(9.0, 0.9 + 0.24 * max(len(rows), 3)), alternative)
