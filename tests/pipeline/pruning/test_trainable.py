"""Models that photographs cannot train or judge are refused before the work, and pruned where none is asked for."""

import keras
import pytest
from keras import layers

from jetson.errors import BadInput
from pipeline import cli
from pipeline.models import detector
from pipeline.pruning import trainable


def own():
    """Two maps under names of its own, boxes of five numbers."""
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(16, 3, strides=8, name="body")(image)
    return keras.Model(image, [layers.Conv2D(4, 1, name="a")(x), layers.Conv2D(5, 1, name="b")(x)])


def classifier():
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", name="body")(image)
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def heads(classes=3, numbers=4, strides=detector.STRIDES, channels=3, side=None):
    """A network with a detector's names, and with the shapes that are asked for."""
    image = keras.Input((side, side, channels))
    outputs = []
    for stride in strides:
        x = layers.Conv2D(8, 3, strides=stride, padding="same")(image)
        for kind, width in (("cls", classes), ("box", numbers)):
            outputs.append(layers.Conv2D(width, 1, name=f"{kind}_{stride}")(x))
    return keras.Model(image, outputs)


def test_ours_can_be_trained():
    assert trainable.reason(detector.build("n")) is None
    assert trainable.reason(heads()) is None and trainable.reason(heads(classes=1)) is None


@pytest.mark.parametrize(
    "make",
    [own, classifier, lambda: heads(numbers=5), lambda: heads(strides=(8, 16, 32)), lambda: heads(channels=1),
     lambda: heads(side=64), lambda: keras.Sequential([layers.Dense(2)])],
)  # fmt: skip
def test_what_cannot_be_trained_has_a_reason(make):
    with pytest.raises(BadInput) as told:
        trainable.require(make(), "here")
    assert told.value.where == "here" and "--importance l1" in told.value.remedy


@pytest.mark.parametrize("make", [own, classifier])
def test_the_verb_refuses_before_the_work_and_prunes_without_data(make, tmp_path, monkeypatch, capsys):
    path = str(tmp_path / "model.keras")
    make().save(path)

    def prune(*words):
        line = ["jetmask", "prune", "--model", path, "--out", str(tmp_path / "out"), "--data", str(tmp_path), *words]
        monkeypatch.setattr("sys.argv", line)
        return cli.main()

    for words in (["--ratio", "0.5"], ["--scan", "--epochs", "0"], ["--max-drop", "1"], ["--two-four"],
                  ["--ratio", "0.5", "--epochs", "0", "--importance", "taylor"]):  # fmt: skip
        assert prune(*words) == 3, words
        assert "not a jetmask detector" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.keras"))
    assert prune("--ratio", "0.5", "--epochs", "0", "--importance", "l1") == 0
    smaller = keras.saving.load_model(str(tmp_path / "out" / "best.keras"))
    assert smaller.get_layer("body").filters == 8
