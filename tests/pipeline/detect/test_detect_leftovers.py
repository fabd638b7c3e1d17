"""What a killed run of `jetmask detect` left aside goes when the next one begins."""

import os
import subprocess
import sys

from pipeline.detect import results


def test_half_files_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    keep = {f"videos/b.mp4.{os.getpid()}.part.mp4", "videos/a.mp4", "videos/holiday.part.mp4", "labels/a.txt"}
    half = {f"videos/a.mp4.{gone.pid}.part.mp4", f"labels/deep/a.txt.{gone.pid}.part"}
    for name in keep | half:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    log = results.Log(str(tmp_path), {"score": 0.4})
    log.close()
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert keep <= found and not half & found
