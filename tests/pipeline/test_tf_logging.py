"""TensorFlow's notes on its own start stay off the screen; what matters does not."""

import os
import subprocess
import sys

import pytest

NOTES = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    "I0000 00:00:1795679298.700837   27633 port.cc:153] custom operations are on.\n"
)
ERROR = "E0000 00:00:1795679299.000000   27633 dso.cc:9] a library is missing\n"


def start(folder, root, package, more="", words=""):
    """Run Python with `package` as the tensorflow that it finds."""
    (folder / "tensorflow").mkdir()
    (folder / "tensorflow" / "__init__.py").write_text(package)
    code = f"from pipeline import tf_logging as quiet\nquiet.tensorflow({words})\n{more}"
    code += "import tensorflow\nprint(tensorflow.here)"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=str(folder),
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ, PYTHONPATH=f"{folder}:{root}"),
    )


def test_notes_are_left_out_and_an_error_is_not(root, tmp_path):
    done = start(
        tmp_path,
        root,
        f"import os, sys\nos.write(2, {(NOTES + ERROR).encode()!r})\nprint('a warning', file=sys.stderr)\n"
        "os.write(1, b'told at once\\n')\nhere = 1\n",
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, ERROR + "a warning\n", "told at once\n1\n")


def test_an_import_that_fails_says_why(root, tmp_path):
    package = f"import os\nos.write(2, {NOTES.encode()!r})\nraise ImportError('no wheel for this')\n"
    done = start(tmp_path, root, package)
    assert done.returncode == 1 and "no wheel for this" in done.stderr
    assert "absl" not in done.stderr and "port.cc" not in done.stderr


def test_an_abort_on_a_processor_without_avx_is_told(root, tmp_path):
    (tmp_path / "cpuinfo").write_text("flags\t: fpu sse4_2\n")
    done = start(
        tmp_path, root, "import os\nos.write(2, b'no AVX here')\nos.abort()\n", words=repr(str(tmp_path / "cpuinfo"))
    )
    assert done.returncode == -6 and "no AVX here" in done.stderr


@pytest.mark.parametrize("more", ["import os\nos.close(2)\n", "import sys\nsys.stderr = None\n"])
def test_without_stderr_it_still_starts(root, tmp_path, more):
    done = start(tmp_path, root, "import os\nhere = 2\n", more)
    assert (done.returncode, done.stdout) == (0, "2\n")


def test_a_verb_that_needs_it_says_nothing_on_the_way(root):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "train", "--help"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and "usage: jetmask train" in done.stdout
    assert done.stderr == ""
