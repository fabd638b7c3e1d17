"""Every verb that the two command lines list exists, and its help shows an example, soon."""

import subprocess
import sys

import pytest

from jetson import __main__ as device
from jetson import cli as frame
from pipeline import cli as host

VERBS = [("jetmask", verb, host.VERBS) for verb in host.VERBS]
VERBS += [("python3 -m jetson", verb, device.VERBS) for verb in device.VERBS]


@pytest.mark.parametrize("prog, verb, verbs", VERBS, ids=[f"{prog} {verb}" for prog, verb, _ in VERBS])
def test_a_verb_has_help_with_an_example(prog, verb, verbs, capsys):
    assert frame.main([verb, "--help"], prog, verbs) == 0
    text = capsys.readouterr().out
    assert f"usage: {prog} {verb}" in text
    assert "example" in text.lower() and f"{prog} {verb}" in text.split("usage:")[1].split("\n\n", 1)[1]


def test_no_help_waits_for_what_takes_long_to_load():
    code = (
        "import contextlib, io, sys\nfrom jetson import cli as frame\nfrom pipeline import cli as host\n"
        "for verb in host.VERBS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        frame.main([verb, '--help'], 'jetmask', host.VERBS)\n"
        "print(sorted({'tensorflow', 'keras', 'matplotlib', 'optuna', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize(
    "words, meant",
    [
        (["train", "--epochs", "1"], "--set train.epochs=VALUE"),
        (["predict", "x.onnx", "--fp16"], "--precision fp16"),
        (["val"], "jetmask evaluate"),
    ],
)
def test_words_of_others_lead_to_ours(words, meant, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["jetmask", *words])
    assert host.main() == 2
    assert meant in capsys.readouterr().err
