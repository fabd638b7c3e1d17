"""README's figures are those of the committed CSV files."""

import pytest
from refusals import refused

from benchmarks import readme_table
from jetson.errors import BadInput


@pytest.mark.parametrize("path", readme_table.PAGES, ids=lambda path: path.name)
def test_a_page_shows_what_the_csv_files_hold(path):
    text = path.read_text(encoding="utf-8")
    assert readme_table.MARK.findall(text), f"{path.name} has no marked table"
    assert readme_table.filled(text) == text, "run `make figures`"


def test_a_changed_figure_changes_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(readme_table, "RESULTS", tmp_path)
    marked = "a\n<!-- figures: prediction -->\nold\n<!-- end -->\nb"
    empty = readme_table.filled(marked)
    assert "Not measured yet." in empty and "old" not in empty
    (tmp_path / "latency_model.csv").write_text(
        "leave_one_out_error_pct,leave_source_out_error_pct,kind\n-10.0,+20.0,engine\n+20.0,-2.0,engine\n,,end to end\n"
    )
    text = readme_table.filled(empty)
    assert "| 15.0 % |" in text and "| 11.0 % |" in text and text.endswith("<!-- end -->\nb")
    assert readme_table.filled(text) == text


def test_an_unknown_table_is_named():
    with refused(BadInput, where="README.md", names="'x'"):
        readme_table.filled("<!-- figures: x -->\n<!-- end -->")


@pytest.mark.parametrize("name", readme_table.TABLES)
def test_every_table_can_be_made(name):
    made = readme_table.TABLES[name]()
    assert made.endswith("\n") and "<!--" not in made
