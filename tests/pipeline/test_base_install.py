"""What the base install promises (README): these verbs run without the packages of the extras."""

import subprocess
import sys

import pytest

EXTRAS = ("tensorflow", "keras", "onnx", "tf2onnx", "jinja2", "markupsafe", "matplotlib", "optuna", "ray", "paho")


@pytest.mark.parametrize("verb", ["run", "detect", "evaluate", "choose", "bench", "deploy", "first-light", "doctor"])
def test_a_verb_of_the_base_install_needs_no_extra(verb, root):
    code = (
        f"import sys\nfor name in {EXTRAS!r}: sys.modules[name] = None\n"
        "from jetson import cli; from pipeline.cli import VERBS\n"
        f"cli.parser_for({verb!r}, 'jetmask', VERBS); print('taken')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout == "taken\n", done.stderr[-2000:]
