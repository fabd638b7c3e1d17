"""`jetmask VERB`: the workstation's commands."""

import sys

from jetson import cli
from pipeline import tf_logging

VERBS = {
    "demo": ("pipeline.demo.cli", "the whole way once: data, training, pruning, bundle, live run, report"),
    "data": ("pipeline.data.cli", "import, check, split, select, prelabel and describe photographs"),
    "train": ("pipeline.training.cli", "train or fine-tune the detector"),
    "prune": ("pipeline.pruning.cli", "remove channels and fine-tune"),
    "export": ("pipeline.export.cli", "write the ONNX file of a trained model and check it"),
    "calibrate": ("pipeline.quantization.cli", "measure the ranges that int8 needs"),
    "build": ("pipeline.build.cli", "make the variants of a model: fp32, fp16, int8"),
    "bundle": ("pipeline.bundle.cli", "write everything a device needs into one folder"),
    "evaluate": ("pipeline.evaluation.cli", "measure AP of a bundle on a labelled split"),
    "detect": ("pipeline.detect.cli", "find faces on photographs and videos of your own"),
    "predict": ("pipeline.latency.cli", "predict a model's latency on a device"),
    "bench": ("pipeline.bench.cli", "measure latency and throughput of a bundle on this machine"),
    "report": ("pipeline.report.cli", "write a run's report as one HTML file"),
    "sweep": ("pipeline.sweep.cli", "search models and input sizes for the speed-accuracy front"),
    "choose": ("pipeline.choose.cli", "choose the variant for a target and a latency budget"),
    "run": ("pipeline.run", "detect on a camera or a clip here, with the live page"),
    "config": ("jetson.config.cli", "check, write or convert the file of `run --config` and `deploy --config`"),
    "deploy": ("pipeline.deploy.cli", "bring a bundle to a Jetson and start it"),
    "first-light": ("pipeline.firstlight.cli", "try everything on a Jetson once, and bring its report home"),
    "doctor": ("pipeline.doctor", "say what this machine has, what is missing, and what to do"),
}


def main() -> int:
    """The entry point of the `jetmask` command."""
    # TensorFlow's notes on its own start are of no use to who reads our progress; errors still show.
    tf_logging.tensorflow()
    return cli.main(None, "jetmask", VERBS)


if __name__ == "__main__":
    sys.exit(main())
