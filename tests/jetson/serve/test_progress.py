"""How far the files of `--once` are read."""

import types

import pytest

from jetson.serve import progress


def camera(status, second, length_s):
    return types.SimpleNamespace(status=status, second=second, length_s=length_s)


@pytest.mark.parametrize(
    "cameras, elapsed_s, wanted",
    [
        ([camera("live", 15.0, 60.0)], 30.0, "25 %, 0:15 of 1:00, about 1:30 left"),
        ([camera("live", 15.0, 60.0)], 1.0, "25 %, 0:15 of 1:00"),
        ([camera("ended", 58.0, 60.0), camera("live", 0.0, 3540.0)], 20.0, "2 %, 1:00 of 1:00:00, about 19:40 left"),
        ([camera("live", 99.0, 60.0)], 10.0, "100 %, 1:00 of 1:00, about 0:00 left"),
        ([camera("live", 5.0, 0.0)], 10.0, ""),
    ],
)
def test_share_and_time_left(cameras, elapsed_s, wanted):
    assert progress.line(cameras, elapsed_s) == wanted
