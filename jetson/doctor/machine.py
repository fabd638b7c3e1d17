"""The machine: board, L4T release, memory, power mode."""

import os
import re
import shutil
from typing import List, Optional, Tuple

from jetson.doctor.finding import Finding, output_of, text_of

# NVIDIA's release notes: L4T release -> JetPack, TensorRT.
JETPACK = (
    ((32, 6, 0), "4.6", "8.0"),
    ((32, 7, 0), "4.6.1 or later", "8.2"),
    ((34, 1, 0), "5.0 preview", "8.4"),
    ((35, 1, 0), "5.0.2", "8.4"),
    ((35, 2, 0), "5.1", "8.5"),
    ((36, 2, 0), "6.0 preview", "8.6"),
    ((36, 3, 0), "6.0", "8.6"),
    ((36, 4, 0), "6.1 or 6.2", "10.3"),
    ((38, 0, 0), "7", "10.13"),
)
OLDEST_L4T = (32, 7, 0)
MIN_RAM_BYTES = 1 << 30


def l4t_release(root: str = "/") -> Optional[Tuple[int, int, int]]:
    """The L4T release of a Jetson, for instance (32, 7, 1); None elsewhere. From /etc/nv_tegra_release."""
    return parse_release(text_of(root, "/etc/nv_tegra_release") or "")


def parse_release(text: str) -> Optional[Tuple[int, int, int]]:
    """The release in the first line of /etc/nv_tegra_release, or None.

    >>> parse_release("# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t186ref")
    (32, 7, 1)
    """
    match = re.match(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2)), int(match.group(3))) if match else None


def jetpack_of(release: Tuple[int, int, int]) -> Tuple[str, str]:
    """(JetPack, TensorRT) that belong to an L4T release; ("unknown", "unknown") before the table begins."""
    best = ("unknown", "unknown")
    for first, jetpack, tensorrt in JETPACK:
        if release >= first:
            best = (jetpack, tensorrt)
    return best


def in_container(root: str = "/") -> bool:
    """Whether this runs inside a container: our image says so itself, others by the files that their program makes."""
    return "JETMASK_EXPECT_GPU" in os.environ or any(
        os.path.exists(os.path.join(root, name)) for name in (".dockerenv", "run/.containerenv")
    )


def board(root: str = "/") -> List[Finding]:
    """The machine: board, L4T release, architecture, memory."""
    found = []
    model = text_of(root, "/proc/device-tree/model")
    release = l4t_release(root)
    if release is None:
        level, remedy = "info", ""
        if model and "Jetson" in model and in_container(root):
            level, remedy = "warn", "mount the file: -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro"
        found.append(Finding(level, "board", f"{model or 'not a Jetson'}; no L4T release file", remedy))
    else:
        jetpack, tensorrt = jetpack_of(release)
        text = "{}, L4T r{}.{}.{}, JetPack {}, TensorRT {}".format(model or "Jetson", *release + (jetpack, tensorrt))
        if release < OLDEST_L4T:
            found.append(
                Finding(
                    "bad",
                    "board",
                    text,
                    "flash or upgrade to JetPack 4.6.1 or later (L4T r32.7.x): "
                    "TensorRT 8.2 is the oldest that is supported",
                )
            )
        else:
            found.append(Finding("ok", "board", text, ""))
    memory = {
        key: int(value) * 1024
        for key, value in re.findall(r"^(\w+):\s+(\d+) kB", text_of(root, "/proc/meminfo") or "", re.M)
    }
    total, free, swap = (memory.get(key, 0) for key in ("MemTotal", "MemAvailable", "SwapTotal"))
    text = f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB available, swap {swap / 2**30:.1f} GiB"
    if total and free < MIN_RAM_BYTES and free + memory.get("SwapFree", 0) < 2 * MIN_RAM_BYTES:
        found.append(
            Finding(
                "warn",
                "memory",
                text,
                "close other programs or stop the desktop (sudo systemctl isolate "
                "multi-user.target), and add swap, before building an engine",
            )
        )
    else:
        found.append(Finding("ok", "memory", text, ""))
    return found


def power() -> List[Finding]:
    """The power mode, which every measurement depends on."""
    text = output_of(["nvpmodel", "-q"]) if shutil.which("nvpmodel") else None
    match = re.search(r"NV Power Mode:\s*(\S+)", text or "")
    return [Finding("info", "power", match.group(1), "")] if match else []
