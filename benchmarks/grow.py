"""A deeper network that computes what a trained one does: its added residual blocks begin as the identity.

    python -m benchmarks.grow runs/m0/grown.keras [--from s] [--to m]

`m` began so from `s`: the time of `s`'s training is not spent twice.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jetson.errors import BadInput
from pipeline import config as configuration
from pipeline.models.detector import Architecture, build, load, save


def grown(net: Any, size: str | Architecture) -> Any:
    """A network of `size` with the weights of `net`, whose layers must be a part of its own by name and shape.

    The batch normalisation of every added layer has a scale of zero, so that relu(x + block(x)) is x where x came out
    of a ReLU. BadInput where the networks do not fit."""
    larger = build(size)
    known = {layer.name: layer for layer in net.layers if layer.get_weights()}
    missing = set(known) - {layer.name for layer in larger.layers}
    for layer in larger.layers:
        if layer.name in known:
            values = known[layer.name].get_weights()
            if [v.shape for v in values] != [w.shape for w in layer.weights]:
                missing.add(layer.name)
                continue
            layer.set_weights(values)
        elif layer.name.endswith("_bn"):
            layer.gamma.assign(0 * layer.gamma)
    if missing:
        raise BadInput(
            "the larger network does not hold the smaller one",
            f"layers {', '.join(sorted(missing)[:5])}",
            "layers of the same names and shapes, and residual blocks in addition",
        )
    return larger


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the .keras file to write")
    parser.add_argument("--from", dest="source", default="s", help="a .keras file, or the name of shipped weights")
    parser.add_argument("--to", default="m", help="a name of the family")
    args = parser.parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save(grown(load(configuration.weights(args.source)), args.to), args.out)


if __name__ == "__main__":
    main()
