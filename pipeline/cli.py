"""`jetmask VERB`: the workstation's commands."""

import sys

from jetson import cli
from pipeline import quiet

VERBS = {
    "demo": ("pipeline.demo", "the whole way once: data, training, pruning, bundle, live run, report"),
    "data": ("pipeline.data.cli", "import, check, split, draw and describe labelled photographs"),
    "train": ("pipeline.train", "train or fine-tune the detector"),
    "prune": ("pipeline.prune_cli", "remove channels and fine-tune"),
    "export": ("pipeline.export", "write the ONNX file of a trained model and check it"),
    "calibrate": ("pipeline.calibrate", "measure the ranges that int8 needs"),
    "build": ("pipeline.build", "make the variants of a model: fp32, fp16, int8"),
    "bundle": ("pipeline.bundle_cli", "write everything a device needs into one folder"),
    "evaluate": ("pipeline.evaluate_cli", "measure AP of a bundle on a labelled split"),
    "predict": ("pipeline.predict", "predict a model's latency on a device that is not here"),
    "bench": ("pipeline.bench", "measure latency and throughput of a bundle on this machine"),
    "report": ("pipeline.report", "write a run's report as one HTML file"),
    "sweep": ("pipeline.sweep", "search models and input sizes for the speed-accuracy front"),
    "choose": ("pipeline.choose", "choose the variant for a target and a latency budget"),
    "run": ("pipeline.run", "detect on a camera or a clip here, with the live page"),
    "deploy": ("pipeline.deploy", "bring a bundle to a Jetson and start it"),
    "doctor": ("pipeline.doctor", "say what this machine has, what is missing, and what to do"),
}


def main() -> int:
    """The entry point of the `jetmask` command."""
    # TensorFlow's notes on its own start are of no use to who reads our progress; errors still show.
    quiet.tensorflow()
    return cli.main(None, "jetmask", VERBS)


if __name__ == "__main__":
    sys.exit(main())
