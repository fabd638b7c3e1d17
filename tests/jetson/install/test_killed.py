"""What a process that was killed in the middle of writing leaves in the state folder is gone with the next lock."""

import os
import subprocess
import sys

from jetson.install.store import Store

CODE = """
import os, signal, sys
from jetson import files
with files.aside(sys.argv[1]) as part:
    open(part, "w").write("{")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_files_aside_of_a_killed_writer_are_swept(tmp_path, root):
    store = Store(str(tmp_path / "state"))
    with store.lock():
        store.write_result({"ok": True})
    os.mkdir(store.path("measured"))
    for name in ("result.json", "trial.json", os.path.join("measured", "a.json")):
        subprocess.run([sys.executable, "-c", CODE, store.path(name)], cwd=root)
    left = [name for name in os.listdir(store.folder) + os.listdir(store.path("measured")) if name.endswith(".part")]
    assert len(left) == 3
    ours = store.path(f".result.json.{os.getpid()}.0123abcd.part")  # of a process that lives
    open(ours, "w").close()
    with store.lock():
        pass
    names = os.listdir(store.folder) + os.listdir(store.path("measured"))
    assert [name for name in names if name.endswith(".part")] == [os.path.basename(ours)]
    assert store.result() == {"ok": True}
