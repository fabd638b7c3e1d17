"""The memory that is left for building an engine, and when a build is stopped so that the runner is not.

The kernel, when it runs out, kills what is biggest: on a 4 GB board that may be the runner. So a build asks first,
makes itself the first victim, and is stopped before the kernel has to choose.
"""

import contextlib
from typing import Optional

from jetson.errors import JetmaskError

MEMINFO = "/proc/meminfo"
# What a build was assumed to need beside its workspace: the CUDA context, TensorRT's libraries and the weights in
# several forms. An assumption, to be replaced by a measured figure from a device.
RESERVE_BYTES = 400 << 20
# A build is stopped when less than this is left. An assumption too: what a runner and sshd need to go on for a moment.
FLOOR_BYTES = 96 << 20
FIRST_VICTIM = 900  # oom_score_adj, of at most 1000


def left(meminfo: str = MEMINFO) -> Optional[int]:
    """Bytes the kernel can still give: MemAvailable and free swap; None where it does not say.

    Swap counts, since the kernel moves other programs there before it kills: a Nano builds with it.
    """
    found = {}
    try:
        with open(meminfo) as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("MemAvailable", "SwapFree"):
                    found[name] = int(value.split()[0]) << 10
    except (OSError, ValueError, IndexError):
        return None
    return found["MemAvailable"] + found.get("SwapFree", 0) if "MemAvailable" in found else None


def check(workspace_bytes: int, meminfo: str = MEMINFO) -> None:
    """Refuse a build that would most likely be stopped half-way."""
    free, need = left(meminfo), workspace_bytes + RESERVE_BYTES
    if free is not None and free < need:
        raise JetmaskError(
            f"not enough free memory for a build: {free >> 20} MiB",
            "MemAvailable and SwapFree in " + meminfo,
            f"{need >> 20} MiB ({workspace_bytes >> 20} workspace, {RESERVE_BYTES >> 20} assumed for the rest)",
            "stop the desktop and other programs (sudo systemctl isolate multi-user.target), add swap, "
            "or give a smaller --workspace-mb",
        )


def watch(phase: str, log: str, meminfo: str = MEMINFO) -> None:
    """JetmaskError when so little is left that a build in `phase` must be stopped now."""
    free = left(meminfo)
    if free is not None and free < FLOOR_BYTES:
        raise JetmaskError(
            f"the build was stopped while {phase}: only {free >> 20} MiB of memory were left",
            log,
            f"at least {FLOOR_BYTES >> 20} MiB, so that the kernel does not kill the runner instead",
            "stop other programs, add swap, or give a smaller --workspace-mb; what runs was not touched",
        )


def be_first_victim() -> None:
    """Ask the kernel to kill this process first when memory runs out (any user may raise its own score)."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(FIRST_VICTIM))
