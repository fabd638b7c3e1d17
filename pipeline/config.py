"""The one configuration: a YAML file, every key with a default, unknown keys refused with the nearest valid name."""

import copy
import dataclasses
import math
import reprlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from jetson import hints
from jetson.bundle import classes as class_list
from jetson.errors import BadInput
from pipeline import meanings, yaml_file

SIZES = ("n", "s", "m", "mobilenetv2")
TRANSFER, IMAGENET = SIZES[-1], "imagenet"  # the size that can start from ImageNet's weights, and their name
PRESETS = Path(__file__).parent / "presets"
WEIGHTS = Path(__file__).parent / "weights"  # those that ship


@dataclass
class Data:
    root: str = ""  # folder with the split folders; "": the environment's JETMASK_DATA
    train: list[str] = field(
        default_factory=list
    )  # folders; []: train and, where there, crops, extra, extra2, negatives
    val: str = "val"  # chosen on; test/ is never read in training, except for the next key
    apart_from: list[str] = field(default_factory=lambda: ["val", "test"])  # near-duplicates of these are left out
    most_per_person: int = 12  # photographs of one person or video, where the files' names tell; 0: all
    classes: list[str] = field(default_factory=list)  # names of the classes, 1 to 80, in the order of the network's
    # outputs; []: the categories of the data, or the three mask classes where it has no others
    roles: dict[str, str] = field(default_factory=dict)  # what a class means to who watches: ok, alert, attention or
    # ignore, as {head: alert}; it sets colours and alarms. Not named: alert for without_mask, attention for
    # mask_worn_incorrect, ok for any other


@dataclass
class Model:
    size: str = "s"  # n, s, m, mobilenetv2 (a teacher), or a .keras file whose shape is taken
    init: str = ""  # a .keras file to start from, or shipped weights (s); "": random weights; for
    # mobilenetv2 also imagenet, or the .h5 file of those weights
    teacher: str = ""  # a .keras file to learn from besides the labels, or shipped weights; "": none
    teacher_weight: float = 1.0  # of the distance to the teacher's answers in the loss
    dropout: float = 0.0  # rate of spatial dropout before the last layers


@dataclass
class Augment:
    single: float = 0.35  # share of canvases with one photograph (these five are the kinds, in any sum)
    mosaic: float = 0.42  # share with four photographs
    paste: float = 0.15  # share with faces pasted into a scene
    large: float = 0.08  # share with one face that fills it
    drawn: float = 0.04  # share of scenes drawn from nothing: hard negatives that no collection has
    prints: float = 0.12  # share with a skull or another face of ink on cloth: hard negatives too
    scale: float = 1.0  # strength of zoom and stretch
    flip: float = 0.5  # probability of a mirror image
    photometric: float = 1.0  # strength of light, contrast and colour
    grey: float = 0.12  # probability of being made grey, whatever collection it is from: grey must mean nothing
    dark: float = 0.12  # probability of .3 to 1 of its light
    blur: float = 0.12  # probability
    noise: float = 0.08  # probability
    jpeg: float = 0.12  # probability of strong compression
    low_resolution: float = 0.1  # probability of being shrunk and enlarged again
    erase: float = 0.08  # probability that a patch hides a part of a face
    drawn_masks: float = 0.12  # probability that bare faces get a drawn mask
    min_face_px: float = 5.0  # smaller faces are kept out of the loss


@dataclass
class Train:
    epochs: int = 60  # each ends with a checkpoint and, by val_every, a validation
    images_per_epoch: int = 4000  # augmented images, however many photographs there are
    batch_size: int = 16  # at 320 x 320; larger sizes get fewer images for the same cost
    sizes: list[list[float]] = field(
        default_factory=lambda: [[256, 0.25], [320, 0.30], [416, 0.25], [512, 0.12], [640, 0.08]]
    )  # [side of the square input, share of steps], multiples of 32
    optimizer: str = "adamw"  # adamw, adam, sgd, rmsprop, adagrad
    learning_rate: float = 2e-3  # at its highest
    schedule: str = "trapezoid"  # trapezoid, cosine, fixed, plateau
    warmup_steps: int = 300  # in which the rate rises from 0
    decay_share: float = 0.35  # trapezoid: the last share of training in which the rate falls to zero
    weight_decay: float = 0.03  # of adamw and sgd
    clip_norm: float = 10.0  # longest gradient of a step; 0: any
    ema: float = 0.9985  # decay of the averaged weights a step; 0: none
    closing_epochs: int = 4  # last epochs without mosaic and paste
    early_stop_epochs: int = 0  # end after so many epochs without a better val figure; 0: never
    val_wh: list[int] = field(default_factory=lambda: [416, 416])  # input (width, height) of a validation
    val_every: int = 1  # epochs between validations
    precision: str = "float32"  # float32 or mixed_bfloat16 (pays only on processors with BF16)
    seed: int = 1  # of weights and augmentation


@dataclass
class Config:
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    train: Train = field(default_factory=Train)


def load(path: str | Path | None = None, overrides: Iterable[str] = (), start: Config | None = None) -> Config:
    """Config from a YAML file (or a preset's name) and `key=value` overrides such as "train.epochs=5"; what neither
    names is as in `start` (default: as declared above)."""
    config = copy.deepcopy(start) if start else Config()
    places: dict[str, str] = {}  # of each key: where it was set last
    if path:
        path = Path(path)
        if not path.exists() and (PRESETS / (path.name + ".yaml")).exists():
            path = PRESETS / (path.name + ".yaml")
        try:
            text = path.read_text(encoding="utf-8")
            document = yaml_file.parse(text, str(path)) or {}
            places = {key: f"{path}, line {line}" for key, line in yaml_file.lines(text).items()}
        except FileNotFoundError:
            names = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
            raise BadInput(
                "no such config",
                where=str(path),
                expected="a YAML file, or a preset: " + names,
                remedy="check the path",
            ) from None
        except RecursionError:
            raise BadInput(
                "not usable YAML: nested too deeply",
                where=str(path),
                expected="keys and values",
                remedy="write it flat",
            ) from None
        except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that there is not
            raise BadInput(
                f"not YAML: {error}", where=str(path), expected="keys and values", remedy="mend the line named above"
            ) from None
        if isinstance(document, dict) and not {"names", "nc"}.isdisjoint(document):
            raise BadInput(
                "this YAML describes a data set, not a training",
                where=str(path),
                expected="a training's configuration, with sections such as train and augment",
                remedy="jetmask data import FOLDER ALL, jetmask data split ALL DIR, jetmask train --data DIR",
            )
        if isinstance(document, dict) and path.parent == PRESETS:
            document.pop("about", None)
        _merge(config, document, str(path), "", places)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise BadInput(
                f"an override without a value: {override!r}",
                expected="key=value, as train.epochs=5",
                remedy="write --set KEY=VALUE",
            )
        try:
            node: Any = yaml_file.parse(text, f"--set {override}")
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise BadInput(
                f"not YAML: {error}",
                where=f"--set {override}",
                expected="a value, as in a YAML file",
                remedy="close brackets and quotes, and quote the whole for the shell",
            ) from None
        for part in reversed(key.strip().split(".")):
            node = {part: node}
        _merge(config, node, f"--set {override}", "", {})
        places[key.strip()] = f"--set {override}"
    _check(config, places)
    return config


def shipped() -> list[str]:
    """Names of the weights that ship."""
    return sorted(path.stem for path in WEIGHTS.glob("*.keras"))


def presets() -> list[tuple[str, dict[str, str]]]:
    """Each preset with what is told of it: {"macs", "time", "ap"}, as text."""
    found = []
    for path in sorted(PRESETS.glob("*.yaml")):
        found.append((path.stem, dict(yaml.safe_load(path.read_text(encoding="utf-8")).get("about") or {})))
    return found


def weights(name: str) -> str:
    """The path of a model's weights: `name` itself, or the shipped ones where it is their name (s, sp) and no file."""
    return str(WEIGHTS / (name + ".keras")) if name in shipped() and not Path(name).exists() else name


# What each number must be, from the least to the largest; those of augment are 0 or more.
_RANGES = {
    "train.epochs": (0, math.inf),
    "train.images_per_epoch": (1, math.inf),
    "train.batch_size": (1, math.inf),
    "train.learning_rate": (0, math.inf),
    "train.warmup_steps": (0, math.inf),
    "train.decay_share": (0, 1),
    "train.weight_decay": (0, math.inf),
    "train.clip_norm": (0, math.inf),
    "train.ema": (0, 0.999999),
    "train.closing_epochs": (0, math.inf),
    "train.early_stop_epochs": (0, math.inf),
    "train.val_every": (1, math.inf),
    "train.seed": (0, 2**32 - 1),
    "model.dropout": (0, 0.99),
    "data.most_per_person": (0, math.inf),
    "model.teacher_weight": (0, math.inf),
}
_CHOICES = {"train.precision": ("float32", "mixed_bfloat16")}
_SHARES = ("single", "mosaic", "paste", "large", "drawn")


def _check(config: Config, places: Mapping[str, str]) -> None:
    """BadInput for a value that would stop the training later, or would let it go on without sense.
    places: of a key, the file and line or the override that set it."""

    def refuse(key: str, value: Any, expected: str) -> None:
        _refuse(key, value, expected, places.get(key, key))

    values = {**_RANGES, **{"augment." + name: (0, math.inf) for name in dataclasses.asdict(config.augment)}}
    for key, (low, high) in values.items():
        value = _at(config, key)
        if not (low <= value <= high and value < math.inf):  # NaN is neither
            refuse(key, value, f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}")
    for key, known in _CHOICES.items():
        if _at(config, key) not in known:
            refuse(key, _at(config, key), "one of " + ", ".join(known))
    model = config.model
    if model.size not in SIZES and not model.size.endswith(".keras"):
        refuse("model.size", model.size, f"{', '.join(SIZES)} or a .keras file")
    if (model.init == IMAGENET or model.init.endswith(".h5")) and model.size != TRANSFER:
        refuse(
            "model.init",
            model.init,
            f"a .keras file or shipped weights: only model.size={TRANSFER} takes weights of ImageNet",
        )
    for key in ("data.train", "data.apart_from"):
        if not all(isinstance(name, str) and name for name in _at(config, key)):
            refuse(key, _at(config, key), "names of folders, as [train, extra]")
    if sum(getattr(config.augment, name) for name in _SHARES) <= 0:
        refuse("augment." + _SHARES[0], config.augment.single, "over 0 for one of " + ", ".join(_SHARES))
    wh, sizes = config.train.val_wh, config.train.sizes
    if len(wh) != 2 or not all(map(_side, wh)):
        refuse("train.val_wh", wh, "[width, height], multiples of 32")
    if (
        not all(isinstance(entry, list) and len(entry) == 2 and _side(entry[0]) and _share(entry[1]) for entry in sizes)
        or not sum(share for _, share in sizes) > 0
    ):
        refuse("train.sizes", sizes, "[[size, share], ...]: multiples of 32, shares of which one is over 0")
    data = config.data
    if data.classes and (found := class_list.problems(data.classes)):
        refuse("data.classes", data.classes, "; ".join(found))
    if wrong := [role for role in data.roles.values() if role not in class_list.ROLES]:
        refuse("data.roles", wrong[0], "one of " + ", ".join(class_list.ROLES) + " for each class")


def _at(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _side(value: Any) -> bool:
    return type(value) is int and value > 0 and value % 32 == 0


def _share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


_SHORT = reprlib.Repr()  # a few aliases of YAML can make a value that fills the memory when it is written out
_SHORT.maxlevel, _SHORT.maxstring = 3, 120


def _refuse(key: str, value: Any, expected: str, where: str) -> None:
    raise BadInput(f"{key} is {_SHORT.repr(value)}", where=where, expected=expected, remedy="change the value")


def _merge(target: Any, document: Any, source: str, prefix: str, places: Mapping[str, str]) -> None:
    """Set the keys of a document; errors name `source`, or the key's own place where it is known."""
    where = places.get(prefix.rstrip("."), source)
    if not isinstance(document, dict):
        raise BadInput(
            f"{prefix or 'the file'} is not a section",
            where=where,
            expected="keys and values",
            remedy="write it as `section:` with indented keys",
        )
    names = {f.name: f for f in dataclasses.fields(target)}
    for key, value in document.items():
        full = prefix + str(key)
        where = places.get(full, places.get(prefix.rstrip("."), source))  # a merged key has only its section's
        if key not in names:
            known = keys()
            words = meanings.keys(known)
            near = hints.nearest(str(key) if key in words and full not in words else full, known, words)
            near = near or hints.nearest(str(key), known, words)
            raise BadInput(
                f"unknown key {full!r}",
                where=where,
                expected="one of " + ", ".join(sorted(names)),
                remedy=hints.question(near, "'") or "remove it",
            )
        current = getattr(target, key)
        if dataclasses.is_dataclass(current):
            _merge(current, value, source, full + ".", places)
        else:
            setattr(target, key, _typed(value, current, full, where))


def _typed(value: Any, default: Any, key: str, where: str) -> Any:
    kind = type(default)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML reads 2e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if type(value) is kind:
        return value
    raise BadInput(
        f"{key} is {_SHORT.repr(value)}",
        where=where,
        expected=f"{kind.__name__}, as {default!r}",
        remedy="change the value",
    )


def keys() -> list[str]:
    """Every key, as `train.epochs`."""
    return _keys(Config())


def option_meanings() -> dict[str, str]:
    """For a verb with --set: {an option that sets one of these keys elsewhere: how it is set here}."""
    return meanings.options(keys())


def _keys(config: Any, prefix: str = "") -> list[str]:
    out: list[str] = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        out += _keys(value, prefix + f.name + ".") if dataclasses.is_dataclass(value) else [prefix + f.name]
    return out


def to_dict(config: Config) -> dict[str, Any]:
    return dataclasses.asdict(config)


def gone_on_with(before: Mapping[str, Any], config: Config, where: Any) -> None:
    """Tell on stderr what is otherwise than in the run that `config` goes on with. BadInput where its checkpoint means
    nothing then: one optimizer's variables can have the shapes of another's.

    before: `to_dict` of the run's config, {} where it is not known; where: its checkpoint.
    """
    for section, values in to_dict(config).items():
        for key, now in values.items():
            was = before.get(section, {}).get(key, now)
            name = f"{section}.{key}"
            if was == now or name == "data.root":  # where the photographs lie on this machine
                continue
            if name == "train.optimizer":
                _refuse(name, now, f"{was}, as in {where}", name)
            print(f"note: {name} is now {now}, and was {was}", file=sys.stderr)
