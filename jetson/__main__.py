"""`python3 -m jetson VERB`: the device's commands."""

import sys

from jetson import cli

VERBS = {
    "serve": ("jetson.serve", "run the detector on a camera or a clip and serve the live page"),
    "build": ("jetson.build", "build this device's TensorRT engines from a bundle"),
    "bench": ("jetson.bench", "measure latency, throughput and AP of a bundle's variants on this device"),
    "verify": ("jetson.install:verify", "check that a bundle is whole and unchanged"),
    "install": ("jetson.install", "install, switch or roll back bundles on this device"),
    "doctor": ("jetson.doctor", "say what this device has, what is missing, and what to do"),
}

if __name__ == "__main__":
    sys.exit(cli.main(None, "python3 -m jetson", VERBS))
