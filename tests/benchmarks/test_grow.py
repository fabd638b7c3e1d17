"""A grown network gives the answers of the one that it comes from, and can learn more."""

import numpy as np
from refusals import refused

from benchmarks import grow
from jetson.errors import BadInput
from pipeline.models.detector import FAMILY, build, load, save


def test_the_grown_network_computes_the_same_and_its_new_blocks_can_learn(tmp_path):
    small = FAMILY["n"]
    stages = tuple((channels, blocks + 1) for channels, blocks in small.stages)
    net, image = build("n"), np.random.default_rng(1).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    save(net, tmp_path / "n.keras")
    larger = grow.grown(load(tmp_path / "n.keras"), small._replace(stages=stages))
    assert larger.count_params() > net.count_params()
    for one, other in zip(net(image), larger(image), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    with refused(BadInput, names="block_16_0"):
        grow.grown(net, "s")
