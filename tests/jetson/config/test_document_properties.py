"""Arbitrary texts: a value or a message, and YAML, JSON and the edit agree."""

import json

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.config import document, edit
from jetson.config import settings as config
from jetson.errors import BadInput, JetmaskError

WORDS = st.sampled_from(
    ["cameras", "door", ":", " ", "\n", "  ", "- ", "[", "]", "{", "}", ",", "&a", "*a", "<<", "'", '"', "#", "|", ">"]
    + ["!!int", "%", "@", "\t", "source", "csi://0", "1", "0.5", "~", "?", "---", "...", "\\", "\u00e9", "\x00", "\r\n"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, max_size=40).map("".join) | st.text(max_size=60), st.sampled_from(["a.yaml", "a.json"]))
def test_any_text_is_a_value_or_is_told(text, path):
    try:
        found = document.parse(text.encode("utf-8", "surrogatepass"), path)
    except JetmaskError as error:
        assert isinstance(error, BadInput) and error.where.startswith(path)
        return
    json.dumps(found.data, allow_nan=False)  # nothing but what JSON has
    try:
        config.settings_of(found)
    except JetmaskError as error:
        assert error.where


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["a.yaml", "a.json"]))
def test_any_bytes_are_a_value_or_are_told(data, path):
    try:
        document.parse(data, path)
    except JetmaskError as error:
        assert isinstance(error, BadInput)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=8), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_what_was_written_is_read(value):
    text = document.as_json(value)
    assert document.parse(text.encode(), "a.json").data == value
    assert document.parse(text.encode(), "a.json").data == json.loads(text)
    if isinstance(value, dict) and "<<" not in text and "\ufeff" not in text and "\x85" not in text:
        dumped = yaml.safe_dump(value, allow_unicode=False)
        assert set(document.parse(dumped.encode(), "a.yaml").data) == set(value)


POINT = st.lists(st.floats(0, 1).map(lambda share: round(share, 4)), min_size=2, max_size=2)
NAME = st.sampled_from(["a", "b", "in", "out", "q.1", "x-y", "on", "null", "1", "tür"])
PLACES = st.lists(
    st.builds(
        lambda kind, name, points: {"kind": kind, "name": name, "points": points},
        st.sampled_from(["line", "zone"]),
        NAME,
        st.sampled_from([[[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]], [[0, 0], [1, 0], [1, 1], [0, 1]]]),
    ),
    max_size=4,
    unique_by=lambda place: place["name"],
).map(lambda places: [dict(p, points=p["points"][:2]) if p["kind"] == "line" else p for p in places])
LAYOUTS = (
    "cameras:\n  door:\n    source: csi://0   # here\n    {lines}\n    {zones}\n    # end\n  yard: {{source: csi://1}}\n",
    "# top\r\ncameras:\r\n    door: # x\r\n        {zones}\r\n        source: csi://0\r\n        {lines}",
    "cameras: {{door: {{source: csi://0}}, b: {{source: csi://1}}}} # all\npage: {{port: 1}}\n",
    "a: 1\n",
)
_BLOCK = "lines:\n      in: [[0, 0], [1, 1]]  # t\n      # c\n      b:\n        - [0, 0.5]\n        - [1, 0.5]"
LINES = ("# none", "lines:", "lines: {}", "lines: {in: [[0, 0], [1, 1]]}  # f", _BLOCK)
ZONES = ("# none", "zones: ~", "zones:\n      q.1: [[0, 0], [1, 0], [1, 1]]\n\n      # c2")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(LAYOUTS[:3]), st.sampled_from(LINES), st.sampled_from(ZONES), PLACES)
def test_zones_are_saved_and_nothing_else_changes(tmp_path_factory, layout, lines, zones, places):
    crlf = "\r\n" in layout
    if crlf:
        lines, zones = lines.replace("\n      ", "\n            "), zones.replace("\n      ", "\n            ")
    text = layout.format(lines=lines, zones=zones)
    text = text.replace("\r\n", "\n").replace("\n", "\r\n") if crlf else text
    path = tmp_path_factory.mktemp("edit") / "a.yaml"
    path.write_bytes(text.encode())
    before = document.read(str(path)).data
    edit.save_zones(str(path), "door", places)
    after = document.read(str(path)).data
    for section, kind in (("lines", "line"), ("zones", "zone")):
        wanted = {place["name"]: place["points"] for place in places if place["kind"] == kind}
        assert (after["cameras"]["door"].pop(section, None) or {}) == wanted
        before["cameras"]["door"].pop(section, None)
    assert after == before
    once = path.read_bytes()
    edit.save_zones(str(path), "door", places)
    assert path.read_bytes() == once  # the second time there is nothing to do
    for comment in ("# here", "# end", "# top", "# x", "# all"):
        assert once.count(comment.encode()) == text.count(comment)
    assert (b"\r\n" in once) == ("\r\n" in text) and once.count(b"\n") - once.count(b"\r\n") in (0, once.count(b"\n"))
