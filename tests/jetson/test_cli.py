import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jetson import cli
from jetson.errors import BadInput, DeviceMismatch, JetmaskError, QualityGate, UsageError

VERB_MODULE = """
import os, sys
from jetson import errors

def options(parser):
    parser.add_argument("--how", default="well")
    parser.add_argument("--count", type=int)
    parser.epilog = "example: prog go --how well"

def command(args):
    how = args.how
    if how == "well":
        print("done")
    elif how == "code":
        return 7
    elif how == "full":
        raise OSError(28, "No space left on device", "/data/x")
    elif how == "denied":
        raise PermissionError(13, "Permission denied", "/data/y")
    elif how == "interrupt":
        raise KeyboardInterrupt
    elif how == "pipe":
        for _ in range(100000):
            print("line")
    elif how == "bug":
        {}["key"]
    else:
        raise getattr(errors, how)("it broke", "there", "this", "that")

def other_options(parser):
    parser.epilog = "example: prog other"
    inner = parser.add_subparsers(dest="inner")
    inner.add_parser("deep").add_argument("--depth")

def other_command(args):
    print("other", *([args.depth] if args.inner else []))
"""
RUN = (
    "import sys; from jetson import cli; sys.exit(cli.main(None, 'prog', "
    "{'go': ('the_verb', 'goes'), 'other': ('the_verb:other', 'another'), 'lost': ('nowhere_to_be_found', 'x')}))"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("verb")
    (path / "the_verb.py").write_text(VERB_MODULE)
    return str(path)


def run(folder, root, *arguments, **environment):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([root, folder]), TMPDIR=folder, **environment)
    done = subprocess.run(
        [sys.executable, "-c", RUN] + list(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        universal_newlines=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_verb_runs(folder, root):
    assert run(folder, root, "go") == (0, "done\n", "")
    assert run(folder, root, "other") == (0, "other\n", "")
    assert run(folder, root, "other", "deep", "--depth", "3") == (0, "other 3\n", "")
    assert run(folder, root, "go", "--how", "code")[0] == 7


@pytest.mark.parametrize("kind", [JetmaskError, UsageError, BadInput, DeviceMismatch, QualityGate])
def test_an_error_is_its_message_and_its_code(folder, root, kind):
    code, out, err = run(folder, root, "go", "--how", kind.__name__)
    assert (code, out) == (kind.exit_code, "")
    assert err == "error: it broke\n  where: there\n  expected: this\n  do: that\n"


def test_a_full_disk_and_an_interrupt_are_clear(folder, root):
    code, _, err = run(folder, root, "go", "--how", "full")
    assert code == 1 and "no space left" in err and "/data/x" in err and "Traceback" not in err
    code, _, err = run(folder, root, "go", "--how", "denied")
    assert code == 3 and err == "error: permission denied\n  where: /data/y\n"
    code, _, err = run(folder, root, "go", "--how", "interrupt")
    assert code == 130 and "Traceback" not in err


def test_a_bug_leaves_its_traceback_in_a_log(folder, root):
    code, _, err = run(folder, root, "go", "--how", "bug")
    assert code == 1 and "internal error" in err and "Traceback" not in err
    path = [word.rstrip(";") for word in err.split() if word.startswith(folder)][0]
    assert "KeyError" in Path(path).read_text()
    os.unlink(path)
    code, _, err = run(folder, root, "go", "--how", "bug", JETMASK_DEBUG="1")
    assert code == 1 and "Traceback" in err


def test_a_missing_module_says_what_to_install(folder, root):
    code, _, err = run(folder, root, "lost")
    assert code == 1 and "nowhere_to_be_found" in err and "`prog doctor` says" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["usage: prog VERB", "goes"]),
        (["gp"], ["did you mean `prog go`?"]),
        (["go", "--hwo", "x"], ["did you mean --how?"]),
        (["go", "--count", "x"], ["--count", "invalid int"]),
        (["go", "stray"], ["stray"]),
        (["other", "deep", "--dept=3", "--dpeth", "4"], ["did you mean --depth?"]),
    ],
)
def test_misuse_is_code_2_with_the_nearest_word(folder, root, arguments, words):
    code, out, err = run(folder, root, *arguments)
    assert code == 2 and "Traceback" not in err
    for word in words:
        assert word in out + err


def test_help_and_version(folder, root):
    code, out, _ = run(folder, root, "go", "--help")
    assert code == 0 and "example: prog go --how well" in out
    code, out, _ = run(folder, root, "--help")
    assert code == 0 and "goes" in out and "another" in out
    assert run(folder, root, "--version")[0] == 0


def test_a_reader_that_goes_away_is_no_error_message(folder, root):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([root, folder]))
    writer = subprocess.Popen(
        [sys.executable, "-c", RUN, "go", "--how", "pipe"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    assert writer.stdout.readline() == b"line\n"
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait() == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_result_that_cannot_be_printed_is_an_error(folder, root):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([root, folder]))
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "go"], stdout=full, stderr=subprocess.PIPE, env=env, universal_newlines=True
        )
    assert done.returncode == 1
    assert os.strerror(errno.ENOSPC)[:8].lower() in done.stderr.lower() or "no space left" in done.stderr


def test_table():
    assert cli.table(["name", "AP50"], [["s", 79.1], ["large", None]]) == "name   AP50\ns      79.1\nlarge  None"


def test_verify_from_outside(tiny_bundle, tiny_copy, root):
    def verify(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "jetson", "verify"] + list(arguments),
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        return done.returncode, done.stdout, done.stderr

    assert verify(tiny_bundle)[0] == 0
    os.unlink(os.path.join(tiny_copy, "models", "t.onnx"))
    code, out, err = verify(tiny_copy)
    assert code == 3 and "models/t.onnx" in out + err and "Traceback" not in err
    code, out, err = verify(os.path.join(tiny_copy, "no"))
    assert code == 3 and "Traceback" not in err
