"""The version with the commit it was made from: baked in by a build, asked of git in a checkout."""

import subprocess
from pathlib import Path
from typing import Optional

from jetson import __version__

ROOT = Path(__file__).resolve().parent.parent
BAKED = Path(__file__).resolve().parent / "commit.txt"


def commit() -> Optional[str]:
    """The short commit, with "+" behind it where a checkout has changes; None where neither build nor git says."""
    try:
        return BAKED.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        pass
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=8", "--exclude=*", "--dirty=+"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("ascii", "replace").strip() or None


def text() -> str:
    """For instance "0.2.0 (1a2b3c4d)"."""
    known = commit()
    return f"{__version__} ({known})" if known else __version__
