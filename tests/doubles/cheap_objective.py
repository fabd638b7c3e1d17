"""A sweep objective that really trains, in a blink: random features and a logistic regression on a drawn problem.

More features and more pixels cost predicted time and bring accuracy, as with detectors. It keeps a checkpoint, can be
slowed down (CHEAP_PAUSE, seconds an epoch), and can kill its own process once (context "die_once").
"""

import json
import os
import signal
import time

import numpy as np

from jetson import files
from pipeline.graphs.shapes import from_model
from pipeline.graphs.writer import GraphWriter
from pipeline.latency.cli import parse_wh, predict_graph

EPOCHS = 5


def train(trial):
    width, wh = int(trial.params["width"]), parse_wh(trial.params["input_wh"])
    writer = GraphWriter("cheap", 3, wh[1], wh[0])
    model = writer.model(writer.conv(writer.conv("image", width, stride=2), width))
    cost = predict_graph(from_model(model, wh), trial.context["target"], "fp16")
    trial.cost(cost.latency_ms, sum(4 * int(np.prod(tensor.dims)) for tensor in model.graph.initializer))
    random = np.random.default_rng(3)
    x = random.standard_normal((400, 12))
    y = (np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] > 0).astype(float)
    features = np.tanh(x @ random.standard_normal((12, width)) * wh[0] / 320)
    checkpoint = trial.folder / "checkpoint.json"
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"epoch": 0, "weights": [0.0] * width}
    weights, accuracy = np.array(state["weights"]), 0.0
    with open(trial.folder / "epochs.log", "a") as log:
        for epoch in range(state["epoch"] + 1, EPOCHS + 1):
            for _ in range(20):
                probability = 1 / (1 + np.exp(-features @ weights))
                weights += trial.params["rate"] * features.T @ (y - probability) / len(y)
            accuracy = float(((features @ weights > 0) == y).mean() * 100)
            time.sleep(float(os.environ.get("CHEAP_PAUSE", 0)))
            files.write_json(str(checkpoint), {"epoch": epoch, "weights": weights.tolist()})  # whole, if it is killed
            log.write(f"{epoch}\n")
            log.flush()
            marker = trial.context.get("die_once")
            if marker and epoch == 3 and not os.path.exists(marker):
                open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            trial.step(epoch, accuracy)
    accuracy = accuracy or float(((features @ weights > 0) == y).mean() * 100)
    return {"map50": accuracy, "latency_ms": cost.latency_ms, "bytes": trial.known["bytes"]}


def broken(trial):
    raise RuntimeError("no such luck")
