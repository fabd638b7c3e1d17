"""Averages of weights: the share of each, and what cannot be averaged."""

import numpy as np
import pytest
from refusals import refused

from benchmarks import average
from jetson.errors import BadInput, UsageError
from pipeline.models.detector import build, load, save


@pytest.mark.slow
def test_each_weight_is_the_weighted_average(tmp_path):
    nets = [build("n"), build("n")]
    paths = [tmp_path / name for name in ("a.keras", "b.keras")]
    for net, path in zip(nets, paths):
        save(net, path)
    average.main([str(tmp_path / "out.keras"), f"0.75={paths[0]}", f"0.25={paths[1]}"])
    for got, a, b in zip(load(tmp_path / "out.keras").get_weights(), *(net.get_weights() for net in nets)):
        np.testing.assert_allclose(got, 0.75 * a + 0.25 * b, rtol=1e-5, atol=1e-7)
    with refused(UsageError, names="1.25"):
        average.average([(1.0, str(paths[0])), (0.25, str(paths[1]))])
    save(build("s"), tmp_path / "s.keras")
    with refused(BadInput, where="s.keras", names="a.keras"):
        average.average([(0.5, str(paths[0])), (0.5, str(tmp_path / "s.keras"))])
