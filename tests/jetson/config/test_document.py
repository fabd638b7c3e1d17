"""YAML and JSON to the same values, with lines; and what costs far more than its size."""

import json
import time

import pytest

from jetson.config import document
from jetson.errors import BadInput


def lines_of(text, path="a.json"):
    return document.parse(text.encode(), path)


def test_json_has_lines():
    found = lines_of('{\n "a": {\n  "b": [1,\n   2.5, true, null]\n },\n "c": "x\\u00e9"}\n')
    assert found.data == {"a": {"b": [1, 2.5, True, None]}, "c": "xé"}
    assert found.where(("a", "b", 1)) == "a.json, line 4, a.b.1"
    assert found.where(("a", "nothing")) == "a.json, line 2, a.nothing"
    assert found.where(()) == "a.json, line 1"


def test_yaml_and_json_say_the_same():
    pytest.importorskip("yaml")
    text = (
        "a: 1\nb: -2.5e3\nc: yes\nd: 8:30\ne: 'true'\nf: true\ng:\nh: [0x10, 1_000, .5, 1., 2026-12-01, ~]\n"
        "base: &base {x: 1, y: 2}\nover:\n  <<: *base\n  y: 3\non: no\n"
    )
    found = lines_of(text, "a.yaml")
    assert found.data == {
        "a": 1,
        "b": -2500.0,
        "c": "yes",
        "d": "8:30",
        "e": "true",
        "f": True,
        "g": None,
        "h": ["0x10", "1_000", 0.5, 1.0, "2026-12-01", None],
        "base": {"x": 1, "y": 2},
        "over": {"x": 1, "y": 3},
        "on": "no",
    }
    assert lines_of(document.as_json(found.data)).data == found.data
    assert found.where(("over", "y")) == "a.yaml, line 12, over.y"


@pytest.mark.parametrize(
    "text, line",
    [
        ('{\n"a": 1,\n"a": 2}', 3),
        ('{"a": 1}\n}', 2),
        ("{\n'a': 1}", 2),
        ('{"a": NaN}', 1),
        ('{"a": 1e999}', 1),
        ('{"a": 01}', 1),
        ('{"a": 1,}', 1),
        ('{"a": "x\ny"}', 1),
        ("", 1),
        ("[1 2]", 1),
        ("[" * 3000, 1),
        ('{"a": "\\ud8"}', 1),
        ("9" * 5000, 1),
    ],
)
def test_what_is_no_json_is_told_with_its_line(text, line):
    with pytest.raises(BadInput) as told:
        lines_of(text)
    assert f"line {line}" in told.value.where


@pytest.mark.parametrize(
    "text, line",
    [
        ("a: 1\nb: 2\na: 3\n", 3),
        ("a:\n  - [b\nc: d", 3),
        ("a: *nowhere\n", 1),
        ("? [x]\n: 1\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: &a\n  b: *a\n", 1),
        ("<<: 3\n", 1),
        ("a: \x07\n", 1),
        ("[" * 3000, 1),
        ("- " * 3000 + "a", 1),
        ("!!python/object/apply:os.system [x]", None),
        ('a: "\\U99999999"\n', 1),
    ],
)
def test_what_is_no_configuration_is_told_with_its_line(text, line):
    pytest.importorskip("yaml")
    try:
        found = lines_of(text, "a.yaml")
    except BadInput as error:
        assert line is not None and f"line {line}" in error.where
    else:
        assert line is None and found.data == ["x"]  # a tag makes nothing of it


def test_aliases_of_aliases_are_counted_as_if_written_out():
    pytest.importorskip("yaml")
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    merges = "m0: &m0 {x: 1}\n" + "".join(
        f"m{n}: &m{n}\n  <<: [{', '.join([f'*m{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    began = time.process_time()
    for text in (bomb, merges):
        with pytest.raises(BadInput):
            lines_of(text, "a.yaml")
    assert time.process_time() - began < 60  # written out it were 10^10 values


def test_not_utf8_and_too_long_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a":\n"\xff"}')
    with pytest.raises(BadInput) as told:
        document.read(str(path))
    assert "line 2" in told.value.where
    path.write_bytes(b" " * (document.MOST_BYTES + 1))
    with pytest.raises(BadInput):
        document.read(str(path))
    with pytest.raises(BadInput):
        document.read(str(tmp_path / "nothing.json"))
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert document.read(str(path)).data == {"a": 1}
