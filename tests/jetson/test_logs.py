"""What is told beside results: how much of it, and in which form."""

import os
import re
import subprocess
import sys
import tempfile

import pytest

VERB = """
import logging
log = logging.getLogger("jetson.example")

def options(parser):
    inner = parser.add_subparsers(dest="inner")
    inner.add_parser("deep")

def command(args):
    logging.basicConfig(level=logging.INFO)  # as some libraries do: our lines come once all the same
    log.debug("detail")
    log.info("two\\nlines")
    log.warning("careful")
    logging.getLogger("foreign").warning("of another library")
    print("result")
"""
CODE = "import sys; from jetson import cli; sys.exit(cli.main(None, 'prog', {'go': ('log_verb', 'goes')}))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("verb")
    (path / "log_verb.py").write_text(VERB)
    return str(path)


def told(folder, root, *arguments, **words):
    """Lines on stderr of our own loggers; `journal`: stderr is what JOURNAL_STREAM says."""
    with tempfile.TemporaryFile() as errors:
        env = dict(os.environ, PYTHONPATH=os.pathsep.join([root, folder]))
        about = os.fstat(errors.fileno())
        if "journal" in words:
            env["JOURNAL_STREAM"] = words["journal"].format(about.st_dev, about.st_ino)
        line = [sys.executable, "-c", CODE, "go"] + list(arguments)
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=errors, env=env)
        assert done.returncode == 0 and done.stdout == b"result\n"
        errors.seek(0)
        return [line for line in errors.read().decode().splitlines() if "another library" not in line]


def test_how_much_is_told(folder, root):
    assert told(folder, root) == ["two", "lines", "careful"]
    assert told(folder, root, "-q") == ["careful"]
    detailed = told(folder, root, "-v")
    assert len(detailed) == 4 and re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} jetson.example: detail$", detailed[0])
    assert told(folder, root, "deep", "--quiet") == ["careful"]
    assert told(folder, root, "-v", "deep", "-q") == ["careful"]  # the last one counts


def test_the_journal_gets_priorities_and_no_times(folder, root):
    assert told(folder, root, journal="{}:{}") == ["<6>two", "<6>lines", "<4>careful"]
    assert told(folder, root, "-v", journal="{}:{}")[0] == "<7>jetson.example: detail"
    assert told(folder, root, journal="1:1") == ["two", "lines", "careful"]  # stderr was sent elsewhere
