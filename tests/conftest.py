"""Fixtures for both test trees; runs under Python 3.6 and under the host's Python."""

import os
import shutil
import sys

import pytest

TESTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(TESTS)
sys.path[:0] = [
    path for path in (ROOT, os.path.join(TESTS, "data"), os.path.join(TESTS, "doubles")) if path not in sys.path
]


# Files that take minutes begin first, so that no worker is left alone with one at the end.
LONG = (
    "test_jetson_on_python36",
    "test_deploy",
    "test_rollout",
    "test_train",
    "test_schedule",
    "test_readme",
    "test_pruner",
)


def pytest_collection_modifyitems(items):
    """Long files first. Tests of the real photographs need to be told where those are."""
    items.sort(key=lambda item: next((i for i, name in enumerate(LONG) if name in item.nodeid), len(LONG)))
    if not os.environ.get("JETMASK_DATA"):
        skip = pytest.mark.skip(reason="JETMASK_DATA is not set")
        for item in items:
            if item.get_closest_marker("needs_data"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def root():
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_bundle():
    """A whole valid bundle whose net finds coloured squares (data/make_tiny_bundle.py); do not write to it."""
    return os.path.join(TESTS, "data", "tiny_bundle")


@pytest.fixture
def tiny_copy(tiny_bundle, tmp_path):
    """A copy of the tiny bundle that a test may damage."""
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, str(copy))
    return str(copy)


@pytest.fixture(scope="session")
def draw():
    """`draw(frame_wh, [(label, centre x, centre y, side), …], seed=0)` -> uint8 BGR frame for the tiny bundle's net."""
    import squares

    return squares.draw


@pytest.fixture(scope="session")
def data_dir():
    """The labelled photographs (tests that use it are marked needs_data)."""
    return os.environ["JETMASK_DATA"]
