"""Class names keep their meaning or are refused; and sets with classes of their own go all the way through."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from test_import import jetmask
from test_import_cases import pairs, put, voc

from jetson.errors import BadInput, UsageError
from pipeline.data import layout
from pipeline.data.class_words import WORDS
from pipeline.data.classes import CLASSES, IGNORE, chosen, class_of, nearest_class


@pytest.mark.parametrize(
    "name, right",
    [
        ("With Mask", "with_mask"),
        ("with-mask", "with_mask"),
        ("  WITH__MASK ", "with_mask"),
        ("NoMask", "without_mask"),
        ("未戴口罩", "without_mask"),
        ("戴口罩", "with_mask"),
        ("口罩佩戴不规范", "mask_worn_incorrect"),
        ("sin mascarilla", "without_mask"),
        ("Mascarilla mal puesta", "mask_worn_incorrect"),
        ("sem_mascara", "without_mask"),  # without its accent
        ("masqué", "with_mask"),
        ("masque\u0301", "with_mask"),  # as macOS writes it
        ("без маски", "without_mask"),
        ("Ohne Maske", "without_mask"),
        ("MASKESİZ", "without_mask"),
        ("マスクなし", "without_mask"),
        ("बिना मास्क", "without_mask"),
        ("بدون كمامة", "without_mask"),
        ("tanpa masker", "without_mask"),
        ("마스크 미착용", "without_mask"),
        ("DontCare", IGNORE),
        ("ＮＯ＿ＭＡＳＫ", "without_mask"),  # as wide as Chinese signs
        ("ﾏｽｸなし", "without_mask"),  # kana of half the width
        ("口罩没戴", "without_mask"),
        ("带口罩", "with_mask"),
        ("masque mal porté", "mask_worn_incorrect"),
        ("Masque non porté", "without_mask"),
        ("masque_sous_le_nez", "mask_worn_incorrect"),
        ("w/o mask", "without_mask"),
        ("with-no-mask", "without_mask"),
        ("mask_off", "without_mask"),
        ("improperly masked", "mask_worn_incorrect"),
        ("no lleva mascarilla", "without_mask"),
        ("não usa máscara", "without_mask"),
        ("человек без маски", "without_mask"),
        ("маска на подбородке", "mask_worn_incorrect"),
        ("Maske nicht getragen", "without_mask"),
        ("マスク未装着", "without_mask"),
        ("maske takmamış", "without_mask"),
        ("masker di dagu", "mask_worn_incorrect"),
        ("मास्क नहीं है", "without_mask"),
        ("بدون ماسك", "without_mask"),
        ("마스크 안 함", "without_mask"),
        ("không đeo khẩu trang", "without_mask"),
    ],
)
def test_known_names_of_many_languages(name, right):
    assert class_of(name, {}) == right


@pytest.mark.parametrize(
    "name",
    [
        "!mask",
        "mask+",
        "mask-",
        "-mask",
        "~mask",
        "mask (no)",
        "mask/no",
        "no/mask",
        "未戴mask",
        "без mask",
        "✗ mask",
        "❌mask",
        "mask ✓",
        "mask 0",
        "mask_0",
        "mask1",
        "not a mask",
        "face",
        "mask?",
        "mask.no",
        "mask=0",
        "mаsk",
        "ma\u200bsk",
        "mask–",
        "mask−",
        "^mask",
        "mask,no",
        "^",
        "-",
        "0",
        "🙂",
        "😷",
        "🚫😷",
        "mask 🚫",
        "mask×",
        "！mask",
        "mask: no",
        "mask_none",
        "never mask",
    ],
)
def test_what_something_must_be_dropped_of_is_unknown(name):
    assert class_of(name, {}) is None


@pytest.mark.parametrize(
    "name",
    [
        "face_nomask",
        "mask_0",
        "maskless",
        "mask not worn",
        "maskesiz",
        "face",
        "!mask",
        "mask-",
        "nmask",
        "demask",
        "un mask",
    ],
)
def test_no_suggestion_turns_a_meaning(name):
    assert nearest_class(name) in (None, "without_mask")


@pytest.mark.parametrize("name", ["with_mask", "mask", "mask_on", "masked"])
@given(
    before=st.sampled_from(["no", "un", "non", "not", "ohne", "sin", "sans", "w/o", "0", "!", "bare", "anti"]),
    sep=st.sampled_from(["", "_", "-", " "]),
    behind=st.booleans(),
)
def test_a_negation_is_never_taken_for_a_mask(name, before, sep, behind):
    turned = f"{name}{sep}{before}" if behind else f"{before}{sep}{name}"
    assert class_of(turned, {}) != "with_mask" and nearest_class(turned) != "with_mask"


def test_a_slip_of_the_finger_is_suggested():
    assert nearest_class("wth_mask") == "with_mask" and nearest_class("without_mesk") == "without_mask"
    assert nearest_class("face_nomask") == "without_mask" and nearest_class("kid") is None


def test_no_word_means_two_things():
    words = [(word, name) for name, words in WORDS.items() for word in words]
    for word, name in words:
        assert class_of(word, {}) == name


@pytest.mark.parametrize(
    "option, declared, mapping, right",
    [
        (None, ["mask", "no_mask"], {}, CLASSES),
        (None, ["helmet", "no_helmet"], {}, ("helmet", "no_helmet")),
        (None, ["helmet", "mask"], {}, CLASSES),
        (None, ["wth_mask"], {}, CLASSES),
        (None, ["class 0", "class 1"], {}, CLASSES),
        (None, ["0", "1"], {}, CLASSES),
        (None, ["yes", "no"], {}, CLASSES),
        (None, [], {}, CLASSES),
        ("mask", ["helmet"], {}, CLASSES),
        ("all", ["mask", "no_mask"], {}, ("mask", "no_mask")),
        ("all", ["b", "a", "ignore"], {}, ("b", "a")),
        ("all", ["b", "a", "c"], {"c": "a"}, ("b", "a")),
        ("vest, helmet", ["helmet", "vest", "cat"], {}, ("vest", "helmet")),
    ],
)
def test_which_classes_a_source_is_imported_into(option, declared, mapping, right):
    assert chosen(option, declared, declared, mapping)[0].names == right


def test_classes_that_cannot_be():
    for option in ("", ",", "a,a", "a,ignore"):
        with pytest.raises(UsageError):
            chosen(option, ["a"], ["a"], {})
    with refused(BadInput, names=["81", "1 to 80", "--classes", "--map"]):
        chosen("all", [f"c{i}" for i in range(81)], [], {})
    assert len(chosen("all", [f"c{i}" for i in range(80)], [], {})[0].names) == 80


def helmets(root):
    for number in range(12):
        label = f"{number % 3} 0.5 0.5 0.3 0.3\n"
        pairs(root, (f"p{number}",), text=label)
    put(root / "data.yaml", "names: [helmet, no helmet, mask]\n")


def test_a_set_of_own_classes_goes_all_the_way(tmp_path):
    helmets(tmp_path / "s")
    told = jetmask("import", tmp_path / "s", tmp_path / "refused", code=3).stderr  # a mask is among them
    assert "class unknown: 'helmet'" in told and "--classes all keeps" in told
    jetmask("import", tmp_path / "s", tmp_path / "set", "--classes", "all", code=0)
    document = json.loads((tmp_path / "set" / "annotations.json").read_text())
    assert [c["name"] for c in document["categories"]] == ["helmet", "no helmet", "mask"]
    entries, _, classes = layout.load(tmp_path / "set")
    assert classes.names == ("helmet", "no helmet", "mask") and [e.labels for e in entries].count([2]) == 4
    jetmask("check", tmp_path / "set", code=0)
    jetmask("import", tmp_path / "set", tmp_path / "again", code=0)
    assert layout.load(tmp_path / "again").classes == classes
    told = jetmask(
        "split", tmp_path / "set", tmp_path / "parts", "--train", 0.5, "--val", 0.5, "--test", 0, "--json", code=0
    )
    counts = json.loads(told.stdout)
    assert sum(part["no helmet"] for part in counts.values()) == 4
    assert layout.load(tmp_path / "parts" / "train").classes == classes
    plot = tmp_path / "p.png"
    told = jetmask("stats", tmp_path / "parts" / "train", tmp_path / "parts" / "val", "--plot", plot, "--json", code=0)
    found = json.loads(told.stdout)
    assert all(set(one["classes"]) == {"helmet", "no helmet", "mask"} for one in found.values()) and plot.stat().st_size


def test_some_of_the_names_can_be_chosen(tmp_path):
    helmets(tmp_path / "s")
    words = ("import", tmp_path / "s", tmp_path / "out", "--classes", "no helmet,helmet")
    assert "class unknown: 'mask'" in jetmask(*words, code=3).stderr
    jetmask(*words, "--map", "mask=ignore", code=0)
    split = layout.load(tmp_path / "out")
    assert split.classes.names == ("no helmet", "helmet") and sum(len(e.ignore) for e in split.entries) == 4
    assert (
        "--map"
        in jetmask("import", tmp_path / "s", tmp_path / "no", "--classes", "a,b", "--map", "mask=c", code=2).stderr
    )


def test_names_that_are_about_nothing_of_masks_need_no_option(tmp_path):
    put(tmp_path / "s" / "a.jpg")
    put(tmp_path / "s" / "a.xml", voc("helmet"))
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=0)
    assert "note: own classes" in told.stderr and "1 helmet" in told.stdout
    jetmask("import", tmp_path / "s", tmp_path / "no", "--classes", "mask", code=3)


def test_a_plot_of_two_kinds_of_set_is_refused(tmp_path):
    put(tmp_path / "s" / "a.jpg")
    put(tmp_path / "s" / "a.xml", voc("helmet"))
    jetmask("import", tmp_path / "s", tmp_path / "one", code=0)
    put(tmp_path / "s" / "a.xml", voc("mask"))
    jetmask("import", tmp_path / "s", tmp_path / "two", code=0)
    jetmask("stats", tmp_path / "one", tmp_path / "two", "--plot", tmp_path / "p.png", code=3)
    jetmask("stats", tmp_path / "one", tmp_path / "two", code=0)
