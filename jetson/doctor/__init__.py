"""What this device has, what is missing, and what to do about it.

Runs with the standard library alone, so that it can say that numpy is missing. `root` is where the machine's own
files are read from: "/" on a device, in a test a folder that holds the files of another one.
"""

from typing import List

from jetson.doctor.finding import Finding, answer, show
from jetson.doctor.graphics import docker, gpu
from jetson.doctor.machine import OLDEST_L4T, board, in_container, jetpack_of, l4t_release, parse_release, power
from jetson.doctor.software import foreign_package, preload, python, requirements_file, runtimes
from jetson.doctor.surroundings import ENVIRONMENT_STATE, STATE, camera, clock, place, state_folder

__all__ = [
    "ENVIRONMENT_STATE",
    "OLDEST_L4T",
    "STATE",
    "Finding",
    "answer",
    "board",
    "camera",
    "clock",
    "docker",
    "findings",
    "foreign_package",
    "gpu",
    "in_container",
    "jetpack_of",
    "l4t_release",
    "parse_release",
    "place",
    "power",
    "preload",
    "python",
    "requirements_file",
    "runtimes",
    "show",
    "state_folder",
]


def findings(state: str, root: str = "/") -> List[Finding]:
    """Everything, in the order in which it should be mended."""
    checks = [
        lambda: board(root),
        python,
        lambda: gpu(root),
        runtimes,
        lambda: docker(root),
        lambda: camera(root),
        lambda: place(state),
        clock,
        power,
    ]
    return [finding for check in checks for finding in check()]
