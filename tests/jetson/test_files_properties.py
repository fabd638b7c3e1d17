"""jetson.files and manifest on what hypothesis comes up with."""

import os.path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson import files
from jetson.bundle import manifest
from jetson.errors import BadInput

few = settings(max_examples=30, deadline=None, derandomize=True)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@few
@given(json_values)
def test_json_comes_back_as_it_was_written(tmp_path_factory, value):
    path = str(tmp_path_factory.mktemp("json") / "a.json")
    files.write_json(path, value)
    assert files.read_json(path) == value


@few
@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_bad_input(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_bytes(content)
    try:
        files.read_json(str(path))
    except BadInput as error:
        assert "a.json" in str(error)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    json_values,
    st.sampled_from(
        [
            (),
            ("decode",),
            ("decode", "strides"),
            ("variants",),
            ("variants", 0),
            ("variants", 0, "file"),
            ("variants", 0, "input_wh"),
            ("variants", 0, "ap"),
            ("variants", 0, "runtimes"),
            ("variants", 0, "name"),
            ("provenance",),
            ("default_variant",),
            ("classes",),
        ]
    ),
)
def test_any_value_in_a_manifest_is_taken_or_refused_and_never_a_crash(tiny_bundle, value, place):
    document = files.read_json(tiny_bundle + "/manifest.json")
    if not place:
        document = value
    else:
        target = document
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value
    if manifest.problems(document):
        with pytest.raises(BadInput):
            manifest.parse(document)
    else:
        assert manifest.parse(document).variant().name


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=30))
def test_a_safe_path_stays_inside(name):
    if manifest.safe_path(name):
        inside = os.path.normpath(os.path.join("/bundle", name))
        assert inside.startswith("/bundle/") and inside == "/bundle/" + name
