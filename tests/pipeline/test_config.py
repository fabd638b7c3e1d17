import pytest

from jetson.errors import BadInput
from pipeline import config


def test_defaults_file_and_overrides(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  epochs: 7\n  learning_rate: 1e-3\nmodel: {size: n}\n")
    loaded = config.load(path, ["train.batch_size=4", "data.root=/somewhere", "augment.mosaic=0"])
    assert (loaded.train.epochs, loaded.train.batch_size, loaded.train.learning_rate) == (7, 4, 1e-3)
    assert (loaded.model.size, loaded.data.root, loaded.augment.mosaic) == ("n", "/somewhere", 0.0)
    assert config.load().train.optimizer == "adamw"


@pytest.mark.parametrize("text,message", [
    ("train: {epoch: 3}", "did you mean 'train.epochs'"),
    ("trian: {epochs: 3}", "unknown key 'trian'"),
    ("train: {epochs: many}", "train.epochs is 'many'"),
    ("train: 3", "train. is not a section"),
    ("train: [", "not YAML"),
])
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        config.load(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_override_mistakes(tmp_path):
    with pytest.raises(BadInput, match=r"did you mean 'augment.mosaic'"):
        config.load(None, ["augment.mosiac=1"])
    with pytest.raises(BadInput, match="--set KEY=VALUE"):
        config.load(None, ["train.epochs"])
    with pytest.raises(BadInput, match="a preset: "):
        config.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("preset", sorted(p.stem for p in config.PRESETS.glob("*.yaml")))
def test_every_preset_is_valid(preset):
    assert config.load(preset).model.size
