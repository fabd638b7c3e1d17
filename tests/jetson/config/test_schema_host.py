"""schema.json against a whole implementation of JSON Schema, and against the parser: both ways."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.config import document, schema
from jetson.config import settings as config
from jetson.errors import BadInput, JetmaskError
from jetson.mqtt import settings as broker

SCHEMA = schema.load()
WHOLE = jsonschema.Draft202012Validator(SCHEMA)
FULL = {
    "$schema": "x",
    "cameras": {
        "door": {
            "source": "synthetic://",
            "enabled": True,
            "size": "640x480",
            "fps": 2,
            "rotate": 90,
            "roi": [0, 0, 1, 1],
            "score": 0.5,
            "blur": True,
            "lines": {"in": [[0, 0], [1, 1]]},
            "zones": {"q": [[0, 0], [1, 0], [1, 1]]},
            "was": "gate",
            "pictures": "frame",
            "clips": False,
        }
    },
    "credentials": "c",
    "engine": {"variant": "auto", "runtime": "litert", "threads": 2, "governor": "fps=5"},
    "compare": {"variants": "auto", "budget": 5, "eval": "e"},
    "events": {
        "file": "f",
        "history": "h",
        "days": 1,
        "mb": 5,
        "crops": True,
        "pictures": "crop",
        "blur": True,
        "media_mb": 9,
        "clips": {"before": 1, "after": 2, "fps": 3, "width": 320},
    },
    "drift": {"file": "d", "days": 1},
    "alerts": {
        "rules": [{"name": "r", "when": "drift", "cameras": ["door"], "cool_down": "5 min", "to": ["office"]}],
        "receivers": {"office": {"kind": "command", "command": ["true"]}},
        "keep": 10,
        "retry": 1,
        "longest_retry": "5 min",
        "outbox": "o",
        "page": "https://nano.example.org",
    },
    "mqtt": {
        "broker": "mqtt://h",
        "credentials": "c",
        "prefix": "p",
        "node": "n",
        "discovery": "",
        "ca_file": "a",
        "cert_file": "b",
        "key_file": "c",
        "spool": "s",
        "spool_events": 100,
        "spool_mb": 1,
        "counts_every_s": 1,
        "protocol": "5",
        "read_back": False,
    },
    "page": {
        "host": "::1",
        "port": 0,
        "token_file": "t",
        "users": "u",
        "frame_ancestors": ["https://x"],
        "allow_hosts": ["y"],
        "insecure": True,
        "stream_fps": 5,
        "blur_faces": True,
    },
}


def ours(data):
    try:
        schema.check(document.Document("a.json", data, {(): 1}))
    except BadInput:
        return False
    return True


def keys_of(rule, path=()):
    """Every key that the schema knows, by its path."""
    if "$ref" in rule:
        rule = dict(SCHEMA["$defs"][rule["$ref"].rpartition("/")[2]], **rule)
    for name, inner in rule.get("properties", {}).items():
        yield (*path, name)
        yield from keys_of(inner, (*path, name))
    if isinstance(rule.get("additionalProperties"), dict):
        yield from keys_of(rule["additionalProperties"], (*path, "*"))


def test_the_schema_is_one_and_the_docs_have_it():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    published = Path(__file__).parents[3] / "docs" / "jetmask.schema.json"
    assert json.loads(published.read_text(encoding="utf-8")) == SCHEMA


def test_the_parser_takes_every_key_of_the_schema_and_knows_no_other():
    assert not list(WHOLE.iter_errors(FULL))
    found = config.settings_of(document.Document("a.json", copy.deepcopy(FULL), {(): 1}))
    for name, section in (
        ("engine", found.engine),
        ("compare", found.compare),
        ("events", found.events),
        ("drift", found.drift),
        ("page", found.page),
    ):
        assert set(section._fields) == set(SCHEMA["properties"][name]["properties"]), name
        assert all(value not in (None, (), "") for value in section), name  # each key has arrived
        for key, rule in SCHEMA["properties"][name]["properties"].items():
            if "default" in rule:
                assert type(section)()._asdict()[key] == rule["default"], (name, key)
    camera = set(SCHEMA["$defs"]["camera"]["properties"]) - {"enabled", "lines"}
    assert camera | {"name"} == set(config.CameraSettings._fields)
    assert set(SCHEMA["properties"]["mqtt"]["properties"]) == (set(broker._DEFAULTS) - {"username", "password"}) | {
        "broker",
        "credentials",
        "prefix",
    }
    assert set(SCHEMA["properties"]) - {"$schema"} <= set(config.Settings._fields)
    listed = set(keys_of(SCHEMA))
    for path in listed:  # FULL, which the tests below change, has them all
        at = FULL
        for key in path:
            at = next(iter(at.values())) if key == "*" else at[key]


WRONG = (None, True, 0, -1, 1.5, 1e9, "", "x" * 5000, "auto", [], [1, 2], {}, {"x": 1}, [[0, 0], [2, 2]], "90", 90.0)


def paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def put(data, path, value):
    if not path:
        return value
    data = copy.deepcopy(data)
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return data


@pytest.mark.parametrize("path", list(paths(FULL)), ids=lambda path: ".".join(map(str, path)) or "top")
def test_each_value_is_judged_as_a_whole_implementation_does(path):
    for value in WRONG:
        data = put(FULL, path, value)
        assert ours(data) == WHOLE.is_valid(data), (path, value)
    if path and isinstance(path[-1], str):
        data = put(FULL, (*path[:-1], path[-1] + "_"), 1)
        assert ours(data) == WHOLE.is_valid(data), path


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(paths(FULL))), VALUES)
def test_any_value_is_judged_as_a_whole_implementation_does(path, value):
    data = put(FULL, path, value)
    assert ours(data) == WHOLE.is_valid(data)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(paths(FULL))), VALUES)
def test_the_parser_raises_nothing_but_what_is_told(path, value):
    try:
        config.settings_of(document.Document("a.json", put(FULL, path, value), {(): 1}))
    except JetmaskError as error:
        assert error.where is not None
