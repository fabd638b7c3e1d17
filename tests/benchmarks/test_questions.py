"""The three pages say what the committed CSV files hold, and the verdicts follow from the rows."""

import csv

import pytest

from benchmarks import questions, readme_table
from benchmarks.ablation import FIELDS as ABLATION
from benchmarks.pruning import FIELDS as PRUNING


@pytest.mark.parametrize("name", questions.PAGES)
def test_a_page_shows_what_the_csv_files_hold(name):
    text = (readme_table.ROOT / "benchmarks" / name).read_text(encoding="utf-8")
    assert readme_table.MARK.findall(text), "the page has no marked table"
    assert readme_table.filled(text, name, questions.TABLES) == text, "run `make figures`"


def test_every_table_is_on_a_page():
    text = "".join((readme_table.ROOT / "benchmarks" / name).read_text(encoding="utf-8") for name in questions.PAGES)
    assert {name for _, name, _, _ in readme_table.MARK.findall(text)} == set(questions.TABLES)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(readme_table, "RESULTS", tmp_path)

    def write(name, fields, rows):
        with open(tmp_path / (name + ".csv"), "w", newline="") as handle:
            writer = csv.DictWriter(handle, fields)
            writer.writeheader()
            writer.writerows(rows)

    return write


@pytest.mark.parametrize("name", sorted(set(questions.TABLES) - {"int8-targets"}))
def test_without_rows_a_table_says_so(results, name):
    assert "ot measured yet" in questions.TABLES[name]() or "Not decided yet" in questions.TABLES[name]()


def network(kind, name, share, ap, images=1000):
    return {
        "tuning_images": "" if kind == "unpruned" else images,
        "tuning_minutes": 1,
        "kind": kind,
        "importance": name,
        "ratio": 1 - share,
        "macs_share": share,
        "map50_untuned": ap,
        "map50_tuned": "" if kind == "unpruned" else ap,
        "map50_sizes": ap,
        "parameters": 1000,
        "ort_fp32_ratio": share,
        "nano_fp16_predicted_ms": 4,
        "split": "val",
        "input_wh": "416x256",
        "machine": "one; avx2",
    }


@pytest.mark.parametrize(
    ("pruned", "trained", "words"),
    [
        (75.0, 70.0, "s50, pruned to 50 % of the MACs, is better than n, trained small with 45 %: +5.0"),
        (70.0, 75.0, "is worse than n"),
        (70.4, 70.0, "is as good, within a point, as n"),
    ],
)
def test_the_verdict_on_pruning_follows_from_the_rows(results, pruned, trained, words):
    results(
        "pruning",
        PRUNING,
        [
            network("unpruned", "", 1.0, 77.0),
            network("pruned", "s50", 0.5, pruned),
            network("trained", "n", 0.45, trained),
            network("trained", "tiny", 0.1, 10.0),
            network("pruned", "on", 0.5, 90.0, images=2000),
        ],
    )  # nothing had as much training
    assert words in questions.pruned_beside() and "- on" not in questions.pruned_beside()
    results("pruning", PRUNING, [network("unpruned", "", 1.0, 77.0), network("pruned", "s50", 0.5, pruned)])
    assert "no row for a network that was trained small." in questions.pruned_beside()


def ablation(choice, value, seed, difference):
    return {
        "choice": choice,
        "value": value,
        "seed": seed,
        "images": 8000,
        "minutes": 2,
        "map50_320": 50,
        "map50_416": 55 + difference,
        "with_mask": 60,
        "without_mask": 50,
        "difference": difference,
        "model": "n",
        "machine": "one; avx2",
    }


def test_the_verdicts_on_methods_follow_from_the_rows_and_name_what_is_missing(results):
    results(
        "detector_ablation",
        ABLATION,
        [
            ablation("baseline", "b", 1, 0),
            ablation("optimizer", "sgd", 1, -7.5),
            ablation("mosaic", "off", 1, 2.0),
            ablation("flip", "off", 1, 0.9),
            ablation("flip", "off", 2, -0.3),
        ],
    )
    text = questions.methods_training()
    assert "- Better than the baseline: mosaic off." in text and "- Worse than the baseline: optimizer sgd." in text
    assert "| flip | off | 2 | 50.0 | 55.3 | 60.0 | 50.0 | +0.3 | no difference to be seen |" in text
    assert "Not measured: schedule, dropout, batch" in text and text.rstrip().endswith("init, teacher.")


def test_what_two_seeds_differ_by_is_no_verdict(results):
    results(
        "detector_ablation",
        ABLATION,
        [
            ablation("baseline", "b", 1, 0),
            ablation("baseline", "b", 2, 2.7),
            ablation("flip", "off", 1, 2.6),
            ablation("optimizer", "sgd", 1, -7.5),
            ablation("mosaic", "off", 1, 2.8),
        ],
    )
    text = questions.methods_training()
    assert "- Better than the baseline: mosaic off." in text and "- No difference to be seen: flip off." in text
    assert "- Worse than the baseline: optimizer sgd." in text and "differ by 2.7 points" in text


def test_int8_is_compared_with_the_same_model(results):
    """A second model of the bundle has the same sizes and precisions."""
    results(
        "detector",
        ("model", "split", "precision", "input_wh", "map50"),
        [
            {"model": model, "split": "val", "precision": precision, "input_wh": "416x256", "map50": ap}
            for model, precision, ap in (("s", "fp32", 77.0), ("s", "int8-cpu", 76.6), ("sp", "fp32", 70.0))
        ],
    )
    results(
        "int8_shape",
        ("form", "times_faster_p50", "input_wh", "machine"),
        [{"form": "int8-cpu (as shipped)", "times_faster_p50": 2.4, "input_wh": "416x256", "machine": "one; avx2"}],
    )
    assert "| int8 on one (avx2) | x 2.40 | -0.4 | val/ at 416x256 |" in questions.methods_deployed()
