"""The model card: every figure on it stands in a committed table or was handed over, and every command can be given."""

import shlex

import pytest

from benchmarks import average, model_card
from pipeline import config

VAL = {"map50": 80.0, "macs": 1e8, "by_size": {}}
TEST = {"map50": 82.34, "by_size": {"small": 70.0, "medium": None, "large": 99.0}}


def test_the_card_names_what_is_in_the_bundle_and_nothing_else():
    vals = {"s-416x256-fp32": VAL}
    text = model_card.card({"s": "runs/s/last.keras"}, vals, {"s-416x256-fp32": TEST, "s-lost": TEST}, 0.47, "A note.")
    assert "| s-416x256-fp32 | 82.3 | 80.0 | 70.0 | – | 99.0 | 100 |" in text
    assert "s-lost" not in text and "`sp` also learned" not in text and "A note." in text and "0.47" in text
    assert "runs/sp/" not in text and "python -m benchmarks.ship --data DIR s=runs/s/average.keras" in text
    assert max(map(len, text.splitlines())) > 120  # paragraphs are single lines: a page breaks them


@pytest.mark.parametrize("words", [words for steps in model_card.COMMANDS.values() for _, words in steps])
def test_a_command_of_the_card_is_one_that_the_config_takes(words):
    verb, *rest = shlex.split(words)
    assert verb in ("train", "prune", "average")
    if verb == "average":
        assert sum(average.part(text)[0] for text in rest) == 1
    if verb == "train":
        name, *more = rest
        overrides = [value for flag, value in zip(more, more[1:], strict=False) if flag == "--set"]
        assert len(overrides) * 2 == len(more)
        config.load(name, overrides)
