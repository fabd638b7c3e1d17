"""What was found, with what to do about it; and how it is asked and told."""

import json
import os
import subprocess
from typing import List, NamedTuple, Optional

from jetson import __version__
from jetson.errors import DeviceMismatch


# level: ok; info: worth knowing; warn: works, but less well; bad: will not work.
class Finding(NamedTuple):
    level: str
    topic: str
    found: str
    remedy: str


def text_of(root: str, path: str) -> Optional[str]:
    try:
        with open(os.path.join(root, path.lstrip("/")), "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return None


def output_of(command: List[str], timeout_s: float = 15) -> Optional[str]:
    try:
        # Without stderr: a warning there would be taken for the answer.
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=timeout_s
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def show(found: List[Finding]) -> str:
    """The findings as text: level, topic, what was found, and under it what to do."""
    lines = []
    for finding in found:
        lines.append(f"{finding.level:<5} {finding.topic:<18} {finding.found}")
        if finding.remedy and finding.level != "ok":
            lines.append(f"{'':<24} do: {finding.remedy}")
    return "\n".join(lines)


def answer(found: List[Finding], as_json: bool, what: str) -> int:
    """Print the findings and return the exit code: 0, or 4 where something will not work."""
    bad = [finding for finding in found if finding.level == "bad"]
    if as_json:
        print(
            json.dumps(
                {
                    "what": what,
                    "version": __version__,
                    "ok": not bad,
                    "findings": [dict(finding._asdict()) for finding in found],
                },
                indent=1,
            )
        )
    else:
        print(show(found))
        counts = {level: sum(finding.level == level for finding in found) for level in ("bad", "warn")}
        print(f"\n{counts['bad']} of {len(found)} checks need something done, {counts['warn']} could be better")
    return DeviceMismatch.exit_code if bad else 0
