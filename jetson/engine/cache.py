"""Where built engines live: a private folder with, for each key, a sidecar and a plan, always as a complete pair.

A plan is executable code. So the folder must be ours alone (0700), and a plan is used only when its sidecar names the
very recipe and machine that are wanted and the plan's own hash. The sidecar is written first and the plan renamed into
place last; to replace a pair the plan goes first. A process killed at any moment leaves no plan without its sidecar.
"""

import contextlib
import hashlib
import json
import os
import stat
from typing import Any, Dict, NamedTuple, Optional, Tuple

from jetson import files
from jetson.errors import BadInput, JetmaskError

SCHEMA_VERSION = 1


class Recipe(NamedTuple):
    variant: str
    onnx_sha256: str
    input_wh: Tuple[int, int]
    precision: str
    calibration_sha256: Optional[str]
    layer_precisions: Dict[str, str]
    flags: Tuple[str, ...]
    workspace_bytes: int


class Machine(NamedTuple):
    module: str
    tensorrt: str
    gpu: str
    capability: Tuple[int, int]


def default_folder() -> str:
    """$JETMASK_ENGINES, else jetmask/engines in the user's cache folder."""
    own = os.environ.get("JETMASK_ENGINES")
    if own:
        return own
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "jetmask", "engines")


def open_folder(folder: str) -> str:
    """Make the folder (0700) or check that it is ours alone; its absolute path. JetmaskError when it is not."""
    folder = os.path.abspath(folder)
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(folder)
    wrong = None
    if not stat.S_ISDIR(found.st_mode):
        wrong = "it is not a folder"
    elif found.st_uid != os.geteuid():
        wrong = f"it belongs to user {found.st_uid}, not to {os.geteuid()}"
    elif found.st_mode & 0o077:
        wrong = f"its mode is {stat.S_IMODE(found.st_mode):03o}, so others can reach it"
    if wrong:
        raise JetmaskError(
            "the engine cache cannot be trusted: " + wrong,
            folder,
            "a folder of your own with mode 700 (an engine is executable code)",
            "chmod 700 it after a look at what is in it, or set JETMASK_ENGINES to another folder",
        )
    return folder


def identity(recipe: Recipe, machine: Machine) -> Dict[str, Any]:
    """What an engine is made of, as plain JSON values."""
    return json.loads(json.dumps({"recipe": recipe._asdict(), "machine": machine._asdict()}))


def paths(folder: str, recipe: Recipe, machine: Machine) -> Tuple[str, str]:
    """(plan, sidecar) of this recipe on this machine."""
    wanted = dict(identity(recipe, machine))
    wanted["recipe"] = {key: value for key, value in wanted["recipe"].items() if key != "variant"}  # a label only
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode("utf-8")).hexdigest()
    stem = os.path.join(folder, f"{recipe.variant}-{key[:20]}")
    return stem + ".plan", stem + ".json"


def load(folder: str, recipe: Recipe, machine: Machine) -> Tuple[Optional[bytes], str]:
    """(the plan's bytes, "") when a pair for exactly this recipe and machine is there and whole; else (None, why not).

    The bytes returned are the bytes that were hashed: nobody can swap the file in between.
    """
    plan, sidecar = paths(folder, recipe, machine)
    if not os.path.lexists(plan):
        return None, "not built yet"
    try:
        facts = files.read_json(sidecar)
    except BadInput as error:
        return None, f"its sidecar cannot be read ({error.what})"
    if not isinstance(facts, dict) or facts.get("schema_version") != SCHEMA_VERSION:
        return None, "its sidecar has another form"
    for part, wanted in identity(recipe, machine).items():
        found = facts.get(part)
        if found != wanted:
            names = sorted(
                key
                for key in set(wanted) | set(found if isinstance(found, dict) else ())
                if not isinstance(found, dict) or found.get(key) != wanted.get(key)
            )
            return None, f"its sidecar names another {part} ({', '.join(names)})"
    try:
        handle = os.open(plan, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
                return None, "others can write to it"
            data = file.read()
    except OSError as error:
        return None, f"it cannot be read ({error.strerror})"
    digest = hashlib.sha256(data).hexdigest()
    if not isinstance(facts.get("plan"), dict) or facts["plan"].get("sha256") != digest:
        return None, "its content is not what its sidecar says"
    return data, ""


def remove(folder: str, recipe: Recipe, machine: Machine) -> None:
    """Remove a pair: the plan first."""
    for path in paths(folder, recipe, machine):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def write_sidecar(folder: str, recipe: Recipe, machine: Machine, plan_file: str, built: Dict[str, Any]) -> None:
    """Write the sidecar for the plan that lies aside in `plan_file` and is about to be renamed into place."""
    _, sidecar = paths(folder, recipe, machine)
    files.write_json(
        sidecar,
        dict(
            identity(recipe, machine),
            schema_version=SCHEMA_VERSION,
            plan={"sha256": files.sha256(plan_file), "bytes": os.path.getsize(plan_file)},
            built=built,
        ),
    )
