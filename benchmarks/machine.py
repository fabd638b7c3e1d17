"""This machine in one line, for the `machine` column of every committed measurement.

python -m benchmarks.machine
"""

import os
import platform
from importlib import metadata

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp")


def describe(*packages: str) -> str:
    """CPU, the cores that this process may use, its vector units, Python, and the versions of `packages`."""
    name, flags = platform.machine(), []
    try:
        with open("/proc/cpuinfo") as handle:
            for line in handle:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    name = value.strip()
                elif key.strip() in ("flags", "Features"):
                    present = value.split()
                    flags = [flag for flag in FLAGS if flag in present]
                    break
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = [f"{package} {metadata.version(package)}" for package in packages or ("onnxruntime",)]
    return "; ".join(
        [
            f"{name}, {cores} cores",
            " ".join(flags) or "no vector flags known",
            f"Python {platform.python_version()}",
            *versions,
        ]
    )


if __name__ == "__main__":
    print(describe())
