"""benchmarks/README.md is that of the list, the list is complete, and stale results are found by SHA-256."""

import json
from pathlib import Path

import pytest

from benchmarks import catalogue

BENCHMARKS = Path(catalogue.__file__).parent


def test_the_page_is_that_of_the_list():
    assert (BENCHMARKS / "README.md").read_text(encoding="utf-8") == catalogue.page(), "--write"


def test_every_result_is_some_benchmarks():
    listed = {name for each in catalogue.BENCHMARKS for name in each.results}
    others = {"detector.csv", "runs.csv", "mutants.csv", "detect.csv"}  # written by ship, by this list, by --write
    tables = {path.name for path in (BENCHMARKS / "results").glob("*.csv") if not path.name.startswith("train_")}
    assert tables - others <= listed
    assert listed <= {path.name for path in (BENCHMARKS / "results").iterdir()}


@pytest.mark.parametrize("each", catalogue.BENCHMARKS, ids=lambda each: each.name)
def test_every_benchmark_of_the_list_is_a_module_with_its_options(each):
    text = (BENCHMARKS / f"{each.name}.py").read_text(encoding="utf-8")
    for word in each.command.split():
        if word.startswith("--"):
            assert f'"{word}"' in text, word


def test_a_result_is_stale_when_a_models_file_changed(monkeypatch, tmp_path):
    def manifest(sha):
        return json.dumps({"variants": [{"model": "s", "precision": "fp32", "sha256": sha}]})

    (tmp_path / "jetson" / "models").mkdir(parents=True)
    (tmp_path / "jetson" / "models" / "manifest.json").write_text(manifest("new"))
    (tmp_path / "a.csv").write_text("x\n")
    then = manifest("old")
    answers = {"log": "0123456789abcdef", "status": ""}
    monkeypatch.setattr(catalogue, "ROOT", tmp_path)
    monkeypatch.setattr(catalogue, "RESULTS", tmp_path)
    monkeypatch.setattr(catalogue, "git", lambda *words: answers.get(words[0], then))
    asked = catalogue.Benchmark("a", "?", "", ("a.csv",))
    assert catalogue.reason(asked) == "weights of s changed since 01234567"
    assert catalogue.reason(asked._replace(weights=False)) == ""
    assert "missing" in catalogue.reason(asked._replace(results=("b.csv",)))
    then = manifest("new")
    assert catalogue.reason(asked) == ""
