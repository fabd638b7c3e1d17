"""What others call our configuration keys and devices, so that a hint can name ours."""

from collections.abc import Iterable

# Ultralytics' words for training (docs.ultralytics.com, modes/train, train settings), and common ones.
KEYS = {
    "lr": "train.learning_rate",
    "lr0": "train.learning_rate",
    "learning_rate": "train.learning_rate",
    "lrf": "train.decay_share",
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "imgsz": "train.sizes",
    "img_size": "train.sizes",
    "input_size": "train.sizes",
    "multi_scale": "train.sizes",
    "patience": "train.early_stop_epochs",
    "early_stopping": "train.early_stop_epochs",
    "cos_lr": "train.schedule",
    "scheduler": "train.schedule",
    "lr_scheduler": "train.schedule",
    "warmup_epochs": "train.warmup_steps",
    "warmup": "train.warmup_steps",
    "close_mosaic": "train.closing_epochs",
    "amp": "train.precision",
    "half": "train.precision",
    "dtype": "train.precision",
    "wd": "train.weight_decay",
    "grad_clip": "train.clip_norm",
    "clip": "train.clip_norm",
    "val_interval": "train.val_every",
    "save_period": "train.val_every",
    "random_seed": "train.seed",
    "pretrained": "model.init",
    "weights": "model.init",
    "resume_from": "model.init",
    "model": "model.size",
    "arch": "model.size",
    "backbone": "model.size",
    "distill": "model.teacher",
    "path": "data.root",
    "data": "data.root",
    "dataset": "data.root",
    "fliplr": "augment.flip",
    "hsv_h": "augment.photometric",
    "hsv_s": "augment.photometric",
    "hsv_v": "augment.photometric",
    "brightness": "augment.photometric",
    "contrast": "augment.photometric",
    "copy_paste": "augment.paste",
    "cutout": "augment.erase",
    "erasing": "augment.erase",
    "degrees": "augment.scale",
    "zoom": "augment.scale",
}
# Names that boxes, shops and NVIDIA's tools use.
DEVICES = {
    "jetson": "nano",
    "maxwell": "nano",
    "tegra x1": "nano",
    "tegra-x1": "nano",
    "jetson nano 2gb": "nano",
    "jetson nano 4gb": "nano",
    "nx": "xavier-nx",
    "orin": "orin-nano",
    "orin nano super": "orin-nano",
    "cpu": "this-machine",
    "host": "this-machine",
    "local": "this-machine",
    "pc": "this-machine",
    "here": "this-machine",
}


def keys(known: Iterable[str]) -> dict[str, str]:
    """{a word of others, or a key's own last part: our key}, for the keys that there are.

    >>> keys(["train.epochs", "train.learning_rate"])["train.lr"]
    'train.learning_rate'
    """
    known = list(known)
    found = {key.rpartition(".")[2]: key for key in known}
    found.update({word: key for word, key in KEYS.items() if key in known})
    for word, key in list(found.items()):
        section = key.partition(".")[0]
        found.setdefault(f"{section}.{word}", key)
    return {word: key for word, key in found.items() if word not in known}


def options(known: Iterable[str]) -> dict[str, str]:
    """{an option as others have it: how it is written here}, for a verb with --set.

    >>> options(["train.epochs"])["--epochs"]
    '--set train.epochs=VALUE'
    """
    return {f"--{word.replace('_', dash)}": f"--set {key}=VALUE" for word, key in keys(known).items() for dash in "-_"}
