import pytest
from refusals import refused

from jetson.errors import BadInput
from pipeline import config


def test_defaults_file_and_overrides(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  epochs: 7\n  learning_rate: 1e-3\nmodel: {size: n}\n")
    loaded = config.load(path, ["train.batch_size=4", "data.root=/somewhere", "augment.mosaic=0"])
    assert (loaded.train.epochs, loaded.train.batch_size, loaded.train.learning_rate) == (7, 4, 1e-3)
    assert (loaded.model.size, loaded.data.root, loaded.augment.mosaic) == ("n", "/somewhere", 0.0)
    assert config.load().train.optimizer == "adamw"


@pytest.mark.parametrize(
    "text,message",
    [
        ("train: {epoch: 3}", "did you mean 'train.epochs'"),
        ("trian: {epochs: 3}", "unknown key 'trian'"),
        ("train: {epochs: many}", "train.epochs is 'many'"),
        ("train: 3", "train. is not a section"),
        ("train: [", "not YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        config.load(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text,overrides,where",
    [
        ("model: {size: n}\ntrain:\n  epochs: 3\n  epoch: 4\n", [], "mine.yaml, line 4"),
        ("model: {size: n}\ntrain: 3\n", [], "mine.yaml, line 2"),
        ("train:\n  seed: 1\n  epochs: many\n", [], "mine.yaml, line 3"),
        ("train:\n  seed: 1\n  ema: 2.0\n", [], "mine.yaml, line 3"),
        ("train: &a\n  seed: 1\n  ema: 0.5\naugment: {<<: *a}\n", [], "mine.yaml, line 4"),
        ("train:\n  ema: 0.5\n", ["train.ema=2.0"], "--set train.ema=2.0"),
    ],
)
def test_the_line_of_a_mistake_is_told(tmp_path, text, overrides, where):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        config.load(path, overrides)
    assert str(caught.value.where).endswith(where)


@pytest.mark.parametrize(
    "text",
    [
        "train.sizes=[[320",
        "data.val=2021-13-45",
        "train.epochs=-1",
        "train.batch_size=0",
        "train.images_per_epoch=0",
        "train.learning_rate=nan",
        "train.learning_rate=.inf",
        "train.learning_rate=-1",
        "train.sizes=[]",
        "train.sizes=[320]",
        "train.sizes=[[100, 1.0]]",
        "train.sizes=[[64, -1.0]]",
        "train.sizes=[[64, 0]]",
        "train.val_wh=[64]",
        "train.val_wh=[100, 100]",
        "train.val_every=0",
        "train.precision=float17",
        "train.seed=-1",
        "train.ema=2.0",
        "train.clip_norm=-1",
        "model.size=x",
        "model.dropout=1.5",
        "data.train=[1]",
        "augment.blur=-1",
    ],
)
def test_a_value_that_makes_no_sense_is_refused_before_anything_starts(text):
    with refused(BadInput, names=text.partition("=")[0]):
        config.load(None, [text])


def test_some_kind_of_canvas_must_be_left():
    with refused(BadInput, where="augment.single", names="mosaic"):
        config.load(None, [f"augment.{name}=0" for name in ("single", "mosaic", "paste", "large", "drawn")])


def test_a_file_that_is_no_utf8_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b'data: {root: "\xff"}')
    with refused(BadInput, where="mine.yaml", names="YAML"):
        config.load(tmp_path / "mine.yaml")


def test_override_mistakes(tmp_path):
    with refused(BadInput, where="--set augment.mosiac=1", names=["'augment.mosiac'", "'augment.mosaic'?"]):
        config.load(None, ["augment.mosiac=1"])
    with refused(BadInput, names=["'train.epochs'", "--set KEY=VALUE"]):
        config.load(None, ["train.epochs"])
    with refused(BadInput, where="none.yaml", names="mobilenetv2, n, s, sp"):
        config.load(tmp_path / "none.yaml")


def test_every_size_is_a_preset_too():
    assert [config.load(size).model.size for size in ("n", "s", "m")] == ["n", "s", "m"]


@pytest.mark.parametrize("preset", sorted(p.stem for p in config.PRESETS.glob("*.yaml")))
def test_every_preset_is_valid(preset):
    assert config.load(preset).model.size


def test_a_file_and_overrides_go_over_what_a_command_starts_from(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 7}\n")
    start = config.load(None, ["train.epochs=8", "train.learning_rate=5e-4", "train.schedule=cosine"])
    loaded = config.load(path, ["train.schedule=fixed"], start)
    assert (loaded.train.epochs, loaded.train.learning_rate, loaded.train.schedule) == (7, 5e-4, "fixed")
    assert (start.train.epochs, start.train.schedule) == (8, "cosine")


@pytest.mark.parametrize("init", ["imagenet", "body.h5"])
def test_weights_of_imagenet_fit_one_size_only(init):
    assert config.load(None, ["model.size=mobilenetv2", "model.init=" + init]).model.init == init
    with refused(BadInput, where="model.init", names="model.size=mobilenetv2"):
        config.load("s", ["model.init=" + init])


@pytest.mark.parametrize(
    "key, meant",
    [
        ("train.lr", "train.learning_rate"),
        ("lr0", "train.learning_rate"),
        ("train.imgsz", "train.sizes"),
        ("epochs", "train.epochs"),
        ("train.mosaic", "augment.mosaic"),
        ("model.pretrained", "model.init"),
    ],
)
def test_words_of_others_are_understood(key, meant):
    with pytest.raises(BadInput) as told:
        config.load(None, [f"{key}=1"])
    assert told.value.remedy == f"did you mean '{meant}'?"


def test_a_data_sets_yaml_is_no_training(tmp_path):
    (tmp_path / "data.yaml").write_text("path: x\ntrain: images/train\nnc: 2\nnames: [a, b]\n")
    with pytest.raises(BadInput) as told:
        config.load(tmp_path / "data.yaml")
    assert "jetmask data import" in told.value.remedy


def test_options_that_are_keys_here():
    found = config.option_meanings()
    assert found["--epochs"] == "--set train.epochs=VALUE" and found["--lr0"] == "--set train.learning_rate=VALUE"
    assert found["--batch-size"] == found["--batch_size"] == found["--batch"] == "--set train.batch_size=VALUE"
