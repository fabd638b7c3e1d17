"""Fleet files: what they say of each device, and how precisely a mistake is told; the table on a terminal."""

import argparse
import io
import os
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from jetson import cli, files
from jetson.errors import BadInput
from pipeline.cli import VERBS
from pipeline.deploy import board as fleet_board
from pipeline.deploy import cli as deploy
from pipeline.deploy import fleet
from pipeline.deploy import journal as rollout_journal


def read(folder, text, *words):
    path = folder / "fleet.yaml"
    path.write_text(textwrap.dedent(text))
    parser = argparse.ArgumentParser()
    deploy.options(parser)
    return fleet.read(str(path), deploy.options, deploy.settings_of(parser.parse_args(list(words))))


def test_the_nearest_word_wins(tmp_path):
    found = read(
        tmp_path,
        """
        bundle: bundles/face.tar
        defaults: {no-container: true, source: 'csi://0', port: 8081, watch: 5, key: keys/a.pub}
        hosts:
          - user@one
          - name: user@two
            source: [/dev/video0, 'rtsp://camera/1']
            no-container: false
            digest: 0012345678
            host: 0.0.0.0
    """,
        "--watch",
        "9",
        "--start",
        "7",
        "--port",
        "1",
        "--fleet",
        "fleet.yaml",
    )
    one, two = (host.settings for host in found.hosts)
    assert [host.name for host in found.hosts] == ["user@one", "user@two"]
    assert found.bundle == str(tmp_path / "bundles/face.tar") and one.key == str(tmp_path / "keys/a.pub")
    assert (one.no_container, two.no_container) == (True, False)
    assert (one.source, two.source) == (("csi://0",), ("/dev/video0", "rtsp://camera/1"))
    assert (one.watch, one.start, one.port, one.host) == (5.0, 7.0, 8081, "127.0.0.1")
    assert two.host == "0.0.0.0" and two.digest == "0012345678"


def test_the_example_of_the_guide_is_a_fleet(root, tmp_path):
    with open(os.path.join(root, "docs", "guides", "fleet.md"), encoding="utf-8") as file:
        text = file.read().split("```yaml\n# fleet.yaml\n")[1].split("```")[0]
    one, two = read(tmp_path, text).hosts
    assert one.settings.source == ("csi://0",) and two.name == "user@gate-2" and two.settings.port == 8081


@pytest.mark.parametrize(
    "text,where,what",
    [
        ("", "fleet.yaml", "no keys"),
        ("hosts: []", "line 1", "no hosts"),
        ("defaults: {port: 1}", "line 1", "no hosts"),
        ("hosts:\n  - a\n  - b\n  - a\n", "line 4", "twice, first in line 2"),
        ("hosts:\n  - name: a\n    watsh: 80\n", "line 3, key watsh", "did you mean watch"),
        ("hosts:\n  - name: a\n    no_container: true\n", "line 3, key no_container", "did you mean no-container"),
        ("hosts:\n  - name: a\n    port: eighty\n", "line 3, key port", "a whole number"),
        ("hosts:\n  - name: a\n    port: [1]\n", "line 3, key port", "one value"),
        ("hosts:\n  - name: a\n    port:\n", "line 3, key port", "no value"),
        ("hosts:\n  - name: a\n    no-container: maybe\n", "line 3, key no-container", "true or false"),
        ("hosts:\n  - name: a\n    service: cron\n", "line 3, key service", "one of docker"),
        ("hosts:\n  - name: a\n    port: 1\n    port: 2\n", "line 4, key port", "twice"),
        ("hosts:\n  - port: 1\n", "line 2, key name", "without a name"),
        ("hosts:\n  - -oProxyCommand=true\n", "line 2, key name", "not a host"),
        ("hosts:\n  - a\ndefaults:\n  measured: x.json\n", "line 4, key measured", "unknown key"),
        ("hosts:\n  - a\ndefaults:\n  status: true\n", "line 4, key status", "unknown key"),
        ("hosts:\n  - a\ndefaults: 5\n", "line 3, key defaults", "no options"),
        ("host:\n  - a\n", "line 2, key host", "did you mean hosts"),
        ("hosts: [a, b\n", "line 2", "not YAML"),
        ("? [a]\n: b\n", "line 1", "not a word"),
        ("hosts: &h [*h]\n", "line 1", ""),
    ],
)
def test_a_mistake_is_told_with_line_and_key(tmp_path, text, where, what):
    with pytest.raises(BadInput) as caught:
        read(tmp_path, text)
    assert where in str(caught.value) and what in str(caught.value)


@given(
    text=st.one_of(
        st.text(max_size=200),
        st.lists(
            st.sampled_from(
                [
                    "hosts",
                    "defaults",
                    ":",
                    "\n",
                    "  ",
                    "- ",
                    "a",
                    "name: a",
                    "[",
                    "]",
                    "{",
                    "}",
                    "port: 8",
                    "&x",
                    "*x",
                    "!!int",
                    "true",
                    "'",
                    "|",
                    ">",
                    "source:",
                    "? ",
                    ",",
                ]
            ),
            max_size=30,
        ).map("".join),
    )
)
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    parser = argparse.ArgumentParser()
    deploy.options(parser)
    try:
        found = fleet.read(str(path), deploy.options, deploy.settings_of(parser.parse_args([])))
    except BadInput as error:
        assert str(path) in str(error.where)
    else:
        assert found.hosts and len({host.name for host in found.hosts}) == len(found.hosts)


@pytest.mark.parametrize(
    "line,code,what",
    [
        ('ssh: "-o \'open"', 2, "--ssh is not a list of words"),
        ('serve-args: "--name \'x"', 2, "--serve-args is not a list of words"),
        ("state: ~/jetmask", 2, "not an absolute path"),
        ("port: 80800", 2, "1 to 65535"),
        ("start: .nan", 3, "key start"),
        ("watch: -1", 2, "--watch -1"),
        ("retries: -1", 2, "--retries -1"),
        ("build-arg: PROXY", 2, "not KEY=VALUE"),
        ("image-tar: gone.tar", 3, "gone.tar"),
        ("wheels: gone", 3, "gone"),
        ("key: gone.pub", 3, "gone.pub"),
        ("measured: gone/m.json", 3, "make it first"),
    ],
)
def test_a_wrong_option_of_one_device_is_told_before_anything_begins(tmp_path, tiny_bundle, capsys, line, code, what):
    (tmp_path / "fleet.yaml").write_text(f"hosts:\n  - user@good\n  - name: user@bad\n    {line}\n")
    words = ["deploy", tiny_bundle, "--fleet", str(tmp_path / "fleet.yaml"), "--canary", "0"]
    assert cli.main(words, "jetmask", VERBS) == code
    said = capsys.readouterr().err
    assert what in said and "Traceback" not in said and "[1/9]" not in said
    assert code == 3 and line.startswith("start") or "user@bad" in said


def test_what_only_a_deployment_needs_does_not_keep_from_going_back(tmp_path, capsys):
    (tmp_path / "fleet.yaml").write_text("defaults: {image-tar: gone.tar, key: gone.pub}\nhosts: [user@a]\n")
    assert cli.main(["deploy", "--rollback", "--fleet", str(tmp_path / "fleet.yaml")], "jetmask", VERBS) == 2
    assert "has activated a bundle" in capsys.readouterr().err


def test_a_missing_and_a_binary_file_are_told(tmp_path):
    parser = argparse.ArgumentParser()
    deploy.options(parser)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\xff")
    for name, what in (("a.yaml", "No such file"), ("b.yaml", "UTF-8")):
        with refused(BadInput, where=name, names=what):
            fleet.read(str(tmp_path / name), deploy.options, deploy.settings_of(parser.parse_args([])))


def test_the_journal_is_read_back_and_a_foreign_file_refused(tmp_path):
    path = str(tmp_path / "fleet.yaml")
    journal = rollout_journal.Journal(path)
    assert journal.state is None and not journal.unfinished and journal.touched() == []
    journal.begin("d" * 64, "face")
    journal.note("a", phase=rollout_journal.SWITCHING, was="c" * 64, service=True)
    journal.note("b", phase=rollout_journal.SAME, was="d" * 64, service=True)
    again = rollout_journal.Journal(path)
    assert again.unfinished and again.touched() == ["a"] and again.host("a")["was"] == "c" * 64
    assert again.rollout == journal.rollout and again.digest == "d" * 64
    files.write_json(again.path, {"state": "going", "hosts": []})
    with refused(BadInput, where="fleet.rollout.json", names=["--fleet", "--status"]):
        rollout_journal.Journal(path)
    files.write_json(again.path, {"schema_version": 2, "rollout": "r", "gates": []})
    with refused(BadInput, where="fleet.rollout.json", names=["schema_version 2", "schema_version 1"]):
        rollout_journal.Journal(path)
    assert os.listdir(tmp_path) == ["fleet.rollout.json"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def _screen(text, height=200):
    """What a terminal shows after `text`: only moves up and wipes to the end."""
    rows, place = [""], 0
    while text:
        if text.startswith("\033["):
            end = next(i for i, c in enumerate(text) if i > 1 and c.isalpha())
            if text[end] == "A":
                place = max(0, place - int(text[2:end]))
            elif text[end] == "J":
                rows = [*rows[:place], ""]
            text = text[end + 1 :]
            continue
        character, text = text[0], text[1:]
        if character == "\n":
            place += 1
            rows += [""] * (place + 1 - len(rows))
        else:
            rows[place] += character
    return rows


def test_the_live_table_is_drawn_in_place(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "8")
    stream = Terminal()
    names = [f"cam-{number}" for number in range(10)]
    board = fleet_board.Board(names, stream)
    board.draw()
    board.begin("cam-7", "[2/9] ask the device")
    board.tell("cam-7", "  | a long word on it " + "x" * 80)
    board.draw()
    board.say("something to know")
    board.end("cam-7", "failed", "no disk")
    board.begin("cam-2", "[1/9] check the bundle here")
    board.draw()
    shown = [row for row in _screen(stream.getvalue()) if row]
    assert shown[0] == "something to know" and all(len(row) < 60 for row in shown)
    assert len(shown) == 1 + 6 and shown[-1] == "and 5 more"
    assert any(row.startswith("cam-2") and "[1/9]" in row for row in shown)
    assert any(row.startswith("cam-7") and "failed  (no disk)" in row for row in shown)
    board.close()
    assert [row for row in _screen(stream.getvalue()) if row] == ["something to know"]
    results = board.results()
    assert results[7]["result"] == "failed" and results[7]["why"] == "no disk" and results[0]["result"] == "waiting"
    text = fleet_board.text_table([dict(row, was="a" * 64) for row in results])
    assert "cam-7: no disk" in text and "a" * 16 in text


def test_a_tools_colours_do_not_reach_the_table():
    stream = Terminal()
    board = fleet_board.Board(["a"], stream)
    board.begin("a", "[4/9] prepare the image")
    board.tell("a", "  | \x1b[91mold line\r\x1b[0m\x1b[2Kpulling \x0710 %\x1b[0m")
    board.draw()
    assert stream.getvalue().endswith("(pulling 10 %)\n") and "\x1b" not in stream.getvalue()


def test_elsewhere_every_change_is_a_line():
    stream = io.StringIO()
    board = fleet_board.Board(["a", "b"], stream)
    board.begin("a", "[1/9] check")
    board.tell("a", "not shown")
    board.draw()
    board.end("a", "updated")
    assert stream.getvalue() == "a: [1/9] check\na: updated\n"
