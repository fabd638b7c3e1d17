"""The weighted average of the weights of networks of one shape, which often is better than each: what ships is such.

python -m benchmarks.average runs/sp/average.keras 0.65=runs/sp/last.keras 0.35=runs/sp3/last.keras
"""

import argparse
from typing import Any

from jetson.errors import BadInput, UsageError
from pipeline.models.detector import load, save


def average(parts: Any) -> Any:
    """A network with the weighted average of the others' weights. parts: [(share, path of a .keras file)], shares of 1
    in all. BadInput where their shapes differ."""
    if abs(sum(share for share, _ in parts) - 1) > 1e-6:
        raise UsageError(f"the shares are {sum(share for share, _ in parts):g} in all", expected="1")
    nets = [load(path) for _, path in parts]
    for net, (_, path) in zip(nets, parts):
        if [w.shape for w in net.weights] != [w.shape for w in nets[0].weights]:
            raise BadInput("a network of another shape", where=path, expected=f"that of {parts[0][1]}")
    kinds = zip(*(net.get_weights() for net in nets))
    nets[0].set_weights([sum(share * w for (share, _), w in zip(parts, ws)) for ws in kinds])
    return nets[0]


def part(text: str) -> Any:
    share, _, path = text.partition("=")
    return float(share), path


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the .keras file to write")
    parser.add_argument("parts", nargs="+", type=part, metavar="SHARE=FILE.keras")
    args = parser.parse_args(argv)
    save(average(args.parts), args.out)


if __name__ == "__main__":
    main()
