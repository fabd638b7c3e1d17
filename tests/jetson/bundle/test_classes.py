import copy
import os

import pytest

from jetson import files
from jetson.bundle import classes, manifest
from jetson.errors import BadInput


@pytest.fixture(scope="module")
def content(tiny_bundle):
    return files.read_json(os.path.join(tiny_bundle, "manifest.json"))


@pytest.mark.parametrize(
    "names",
    [
        None,
        [],
        "helmet",
        {"helmet": 1},
        ["a", "a"],
        ["total"],
        [""],
        [" helmet"],
        ["hel\nmet"],
        ["x" * 61],
        [3],
        [str(number) for number in range(81)],
    ],
)
def test_what_is_no_list_of_names_is_said(names):
    assert classes.problems(names)


@pytest.mark.parametrize("roles", [[], {"helmet": "red"}, {"cap": "ok"}, {"helmet": None}, {"helmet": ["ok"]}])
def test_what_are_no_roles_is_said(roles):
    assert classes.problems(["helmet"], roles)


def test_eighty_names_of_any_language_are_right():
    names = [f"класс {number}" for number in range(79)] + ['driver\'s "licence" {{ 7 }}']
    assert classes.problems(names, {names[0]: "ignore", names[1]: "alert"}) == []
    made = classes.make(names, {names[0]: "ignore", names[1]: "alert"})
    assert made.ignored() == (0,) and made.alarms() == (1,) and not made.are_masks
    assert len(set(classes.make(["a", "b", "c"], {"a": "alert", "b": "attention"}).colours())) == 3


def test_the_mask_classes_have_their_roles_and_words_unasked():
    assert classes.MASK_CLASSES.roles == ("ok", "alert", "attention") and classes.MASK_CLASSES.are_masks
    assert classes.MASK_CLASSES.words() == ("mask", "no mask", "mask worn wrong")


def test_a_manifest_of_before_is_of_the_mask_classes(content):
    assert "roles" not in content and content["schema_version"] == 1
    assert manifest.parse(content).class_list == classes.MASK_CLASSES


def test_own_classes_need_the_second_version(content):
    own = dict(copy.deepcopy(content), classes=["helmet", "head"], roles={"head": "alert"})
    with pytest.raises(BadInput):
        manifest.parse(own)  # a reader of before would call a helmet a mask
    contents = manifest.parse(dict(own, schema_version=2))
    assert contents.class_list == classes.Classes(("helmet", "head"), ("ok", "alert"))
    assert manifest.version_for(contents.classes) == 2 and manifest.version_for(manifest.CLASSES) == 1
    for roles in ({"head": "red"}, {"cap": "ok"}, []):
        assert any("roles" in line for line in manifest.problems(dict(own, schema_version=2, roles=roles)))
    assert manifest.parse(dict(content, roles={"with_mask": "attention"})).roles == ("attention", "alert", "attention")
