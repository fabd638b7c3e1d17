"""Fit the latency model's parameters to measurements: damped least squares on log times, with priors.

Fourteen rows cannot determine eight numbers freely. Each parameter therefore has a value that physics or experience
suggests and a width (in log units) of how far the data may move it; what the rows say nothing about stays there.
"""

import math
from typing import Any

import numpy as np

from pipeline.latency.roofline import Parameters, total_ms

# Where each number would be put without any measurement, and how sure that is. No published engine row has depthwise
# layers, so the fit leaves theirs where it is put here: kernels without reuse reach a few per cent of the peak, and
# with .04 the SSD-MobileNet row of the end-to-end table leaves about the same rest of a frame (20 ms, with its NMS) as
# the two YOLO rows of the same program (17 ms).
PRIOR = Parameters(
    convolution=0.65,
    winograd=1.6,
    depth=40,
    depthwise=0.04,
    bandwidth=0.6,
    weight_bandwidth=0.4,
    launch_us=12,
    call_ms=0.3,
)
WIDTH = Parameters(
    convolution=0.3,
    winograd=0.25,
    depth=0.7,
    depthwise=0.4,
    bandwidth=0.4,
    weight_bandwidth=0.4,
    launch_us=0.6,
    call_ms=1.0,
)
NOISE = 0.08  # of one measurement, relative


def fit(rows: list, prior: Parameters = PRIOR, width: Parameters = WIDTH, noise: float = NOISE) -> Parameters:
    """Parameters for rows of (layers as `latency.describe` gives them, Rates, measured ms)."""
    start = np.log(np.array(prior, float))
    spread = np.array(width, float)

    def residuals(x: np.ndarray) -> np.ndarray:
        p = Parameters(*np.exp(x))
        data = [math.log(total_ms(described, rates, p) / measured) / noise for described, rates, measured in rows]
        return np.concatenate([data, (x - start) / spread])

    x, damping = start.copy(), 1e-2
    r = residuals(x)
    for _ in range(200):
        step = 1e-5
        jacobian = np.stack([(residuals(x + step * unit) - r) / step for unit in np.eye(len(x))], axis=1)
        normal = jacobian.T @ jacobian
        move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ r)
        candidate = residuals(x + move)
        gain = r @ r - candidate @ candidate
        if gain > 0:
            x, r, damping = x + move, candidate, damping / 3
            if gain < 1e-10:
                break
        else:
            damping *= 4
            if damping > 1e8:
                break
    return Parameters(*(float(value) for value in np.exp(x)))


def leave_out(rows: list, groups: list, **how: Any) -> list:
    """Each row's prediction in ms by a fit without any row of its group (a row number, a source, a family)."""
    out = [0.0] * len(rows)
    for group in dict.fromkeys(groups):
        kept = [row for row, name in zip(rows, groups, strict=True) if name != group]
        parameters = fit(kept, **how)
        for position, name in enumerate(groups):
            if name == group:
                described, rates, _ = rows[position]
                out[position] = total_ms(described, rates, parameters)
    return out


def spread(predicted: list, measured: list, quantile: float = 1.77) -> float:
    """The factor within which 90 % of predictions are expected, from held-out ones.

    Errors are taken as normal in log; 1.77 is Student's two-sided 90 % quantile for about a dozen rows.
    """
    errors = [math.log(p / m) for p, m in zip(predicted, measured, strict=True)]
    return math.exp(quantile * math.sqrt(sum(e * e for e in errors) / len(errors)))
