"""A bundle's table of contents: manifest.json read, checked and verified against SHA256SUMS."""

import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from jetson import files, hints
from jetson.bundle import classes as class_list
from jetson.bundle import paths
from jetson.bundle.classes import Classes
from jetson.errors import BadInput, JetmaskError, UsageError

# 1: the three mask classes. 2: any classes; a reader that knows only 1 must refuse them rather than call them masks.
SCHEMA_VERSION = 1
OWN_CLASSES_VERSION = 2
SCHEMA_VERSIONS = (SCHEMA_VERSION, OWN_CLASSES_VERSION)
# Stands here and not in image.py, so that a device can install a bundle before it has numpy or OpenCV.
PREPROCESSING = "letterbox-bgr-topleft-114-v1"
CLASSES = class_list.MASKS  # of a bundle that does not say others
RUNTIMES = ("tensorrt", "onnxruntime", "litert")
PRECISIONS = ("fp32", "fp16", "int8", "int8-cpu")
SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
REQUIRED_FILES = ("manifest.json", SUMS, "MODEL_CARD.md")
MOST_PIXELS = 16 << 20  # of a network's input: 192 MiB as it is fed
MOST_BYTES = 4 << 20  # of manifest.json, and of SHA256SUMS
AGAIN = "copy or build the bundle again"  # what mends a bundle that is not whole


class Variant(NamedTuple):
    name: str
    model: str
    file: str
    sha256: str
    bytes: int
    input_wh: Tuple[int, int]
    precision: str
    runtimes: Tuple[str, ...]
    macs: int
    ap: Dict[str, Any]
    ap_reason: Dict[str, str]
    targets: Tuple[str, ...]
    sparsity: Optional[str]


Variant.__new__.__defaults__ = (None,)  # sparsity: "2:4" where the weights have that pattern


class Manifest(
    NamedTuple(
        "Manifest",
        [
            ("schema_version", int),
            ("name", str),
            ("created", str),
            ("classes", Tuple[str, ...]),
            ("decode", Dict[str, Any]),
            ("preprocessing", str),
            ("default_variant", str),
            ("variants", Tuple[Variant, ...]),
            ("provenance", Dict[str, Any]),
            ("folder", str),
            ("roles", Tuple[str, ...]),
        ],
    )
):
    """manifest.json with attribute access; `folder` is where it was read from ("" when it was not)."""

    __slots__ = ()

    @property
    def class_list(self) -> Classes:
        """The classes with their roles."""
        return Classes(self.classes, self.roles or class_list.default_roles(self.classes))

    def variant(self, name: Optional[str] = None) -> Variant:
        """The variant called `name`, or the default one; UsageError names the nearest."""
        name = self.default_variant if name is None else name
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = [variant.name for variant in self.variants]
        raise UsageError(
            f"unknown variant {name!r}",
            os.path.join(self.folder, "manifest.json"),
            hints.listed(names),
            hints.question(hints.nearest(name, names)),
        )

    def path(self, variant: Variant) -> str:
        """The model file of a variant."""
        return paths.inside(self.folder, variant.file)


Manifest.__new__.__defaults__ = ((),)  # roles: the default ones


def version_for(names: Sequence[str]) -> int:
    """The schema version that a bundle of these classes is written in: the oldest whose readers understand it."""
    return SCHEMA_VERSION if tuple(names) == CLASSES else OWN_CLASSES_VERSION


def safe_path(name: str) -> bool:
    """Whether `name` is a plain relative path that stays inside the bundle.

    >>> safe_path("models/s.onnx"), safe_path("../s.onnx"), safe_path("/s.onnx")
    (True, False, False)
    """
    return not paths.name_problem(name)


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _integer(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _text(value: Any) -> bool:
    """Shown to people: no line breaks, no codes that a terminal obeys, no half characters that it cannot print."""
    return isinstance(value, str) and 0 < len(value) <= 1000 and value.isprintable()


def _ap_problem(ap: Any) -> Optional[str]:
    if not isinstance(ap, dict):
        return "an object with a key per runtime"
    for runtime, entry in ap.items():
        if runtime not in RUNTIMES:
            return f"keys from {', '.join(RUNTIMES)}, not {runtime!r}"
        if entry is not None and not (isinstance(entry, dict) and _number(entry.get("map50"), 0, 100)):
            return f"for {runtime} null, or an object with map50 in 0..100"
    return None


def _is_list_of(value: Any, check: Any, minimum: int = 1) -> bool:
    return isinstance(value, list) and len(value) >= minimum and all(check(item) for item in value)


# key -> (is it right?, what is expected); the message is built from the second, so that it cannot disagree.
_DECODE = {
    "strides": (
        lambda v: _is_list_of(v, lambda s: _integer(s, 1) and s <= 1024) and v == sorted(set(v)),
        "rising whole numbers, to 1024",
    ),
    "box": (lambda v: v == "exp", '"exp"'),
    "score": (lambda v: _number(v, 0, 1), "a number in 0..1"),
    "iou": (lambda v: _number(v, 0, 1), "a number in 0..1"),
    "max_detections": (lambda v: _integer(v, 1) and v <= 100000, "a whole number from 1 to 100000"),
}
_VOTES = {
    "vote_iou": (lambda v: _number(v, 0, 1) and v > 0, "a number of more than 0 and at most 1")
}  # without it: no votes
_VARIANT = {
    "name": (
        lambda v: _text(v) and re.match(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z", v),
        "letters, digits, '.', '_', '-'",
    ),
    # Files are called after it: calibration/<model>.json.
    "model": (lambda v: safe_path(v) and "/" not in v, "a name that a file can have"),
    "file": (lambda v: safe_path(v) and v.startswith("models/"), "a relative path under models/"),
    "sha256": (lambda v: _text(v) and re.match(r"[0-9a-f]{64}\Z", v), "64 hex digits"),
    "bytes": (lambda v: _integer(v, 1), "a whole number from 1"),
    "input_wh": (
        lambda v: (
            _is_list_of(v, lambda s: _integer(s, 32) and s % 32 == 0 and s <= 8192, 2)
            and len(v) == 2
            and v[0] * v[1] <= MOST_PIXELS
        ),
        f"[width, height], multiples of 32, together at most {MOST_PIXELS} pixels",
    ),
    "precision": (lambda v: v in PRECISIONS, "one of " + ", ".join(PRECISIONS)),
    "runtimes": (lambda v: _is_list_of(v, lambda r: r in RUNTIMES), "a list from " + ", ".join(RUNTIMES)),
    "macs": (lambda v: _integer(v, 0), "a whole number"),
}
_TOP = {
    "schema_version": (
        lambda v: v in SCHEMA_VERSIONS and v is not True,
        " or ".join(map(str, SCHEMA_VERSIONS)) + "; a later one needs a newer jetmask",
    ),
    "name": (_text, "a name"),
    "created": (_text, "a date and time"),
    "classes": (lambda v: isinstance(v, list), "a list of names"),
    "decode": (lambda v: isinstance(v, dict), "an object"),
    "preprocessing": (lambda v: v == PREPROCESSING, repr(PREPROCESSING)),
    "default_variant": (_text, "a variant's name"),
    "variants": (lambda v: isinstance(v, list) and len(v) > 0, "a list of at least one variant"),
}


def _check(value: Any, rules: Dict[str, Any], at: str) -> List[str]:
    if not isinstance(value, dict):
        return [f"{at or 'manifest'}: an object is expected, not {value!r}"]
    problems = []
    for key, (right, expected) in rules.items():
        if key not in value:
            problems.append(f"{at}{key}: missing; expected {expected}")
        elif not right(value[key]):
            problems.append(f"{at}{key}: {repr(value[key]):.80} is not {expected}")
    return problems


def problems(value: Any) -> List[str]:
    """All that is wrong with the content of a manifest.json, one line each; an empty list when it is right."""
    found = _check(value, _TOP, "")
    if not isinstance(value, dict):
        return found
    if isinstance(value.get("classes"), list):
        if value.get("schema_version") == SCHEMA_VERSION and value["classes"] != list(CLASSES):
            found.append(f"classes: {repr(value['classes']):.80} is not [{', '.join(CLASSES)}]")
        else:
            found += class_list.problems(value["classes"], value.get("roles"))
    if isinstance(value.get("decode"), dict):
        found += _check(value["decode"], _DECODE, "decode.")
        if "vote_iou" in value["decode"]:
            found += _check(value["decode"], _VOTES, "decode.")
    if not isinstance(value.get("provenance", {}), dict):
        found.append("provenance: an object is expected")
    names = set()
    variants = value.get("variants")
    for number, variant in enumerate(variants if isinstance(variants, list) else []):
        at = f"variants[{number}]."
        found += _check(variant, _VARIANT, at)
        if not isinstance(variant, dict):
            continue
        wrong = _ap_problem(variant.get("ap", {}))
        if wrong:
            found.append(f"{at}ap: expected {wrong}")
        reasons = variant.get("ap_reason", {})
        if not isinstance(reasons, dict) or not all(map(_text, reasons.values())):
            found.append(f"{at}ap_reason: expected an object of texts")
        if variant.get("sparsity") not in (None, "2:4"):
            found.append(f'{at}sparsity: {variant["sparsity"]!r:.40} is not "2:4"')
        targets = variant.get("targets", [])
        if not isinstance(targets, list) or not all(map(_text, targets)):
            found.append(f"{at}targets: expected a list of names")
        name = variant.get("name")
        if isinstance(name, str):
            if name in names:
                found.append(f"{at}name: {name} appears twice")
            names.add(name)
    if not found and value["default_variant"] not in names:
        found.append(f"default_variant: {value['default_variant']} is not among the variants")
    return found


def parse(value: Any, folder: str = "", where: Optional[str] = None) -> Manifest:
    """A Manifest from the decoded JSON; BadInput lists what is wrong."""
    found = problems(value)
    if found:
        raise BadInput(
            "the manifest is wrong:\n    " + "\n    ".join(found[:10]),
            where or folder or None,
            "a manifest of schema version " + " or ".join(map(str, SCHEMA_VERSIONS)),
            "get or build the bundle again",
        )
    variants = tuple(
        Variant(
            name=v["name"],
            model=v["model"],
            file=v["file"],
            sha256=v["sha256"],
            bytes=v["bytes"],
            input_wh=tuple(v["input_wh"]),
            precision=v["precision"],
            runtimes=tuple(v["runtimes"]),
            macs=v["macs"],
            ap=v.get("ap", {}),
            ap_reason=v.get("ap_reason", {}),
            targets=tuple(v.get("targets", ())),
            sparsity=v.get("sparsity"),
        )
        for v in value["variants"]
    )
    return Manifest(
        schema_version=value["schema_version"],
        name=value["name"],
        created=value["created"],
        classes=tuple(value["classes"]),
        decode=value["decode"],
        preprocessing=value["preprocessing"],
        default_variant=value["default_variant"],
        variants=variants,
        provenance=value.get("provenance", {}),
        folder=folder,
        roles=class_list.make(value["classes"], value.get("roles") or {}).roles,
    )


def load(bundle_dir: str) -> Manifest:
    """Read `bundle_dir`/manifest.json; BadInput when it is not there or not right. Checks no model file."""
    bundle_dir = os.fspath(bundle_dir)
    path = os.path.join(bundle_dir, "manifest.json")
    if not os.path.isdir(bundle_dir):
        raise BadInput(
            "the bundle does not exist",
            bundle_dir,
            "a folder with a manifest.json",
            "unpack a tar file first" if os.path.isfile(bundle_dir) else "check the path",
        )
    if not os.path.isfile(path):
        raise BadInput(
            "this folder is not a bundle", bundle_dir, "a manifest.json in it", "check the path, or " + AGAIN
        )
    return parse(files.read_json(path, MOST_BYTES), bundle_dir, path)


def listing(bundle_dir: str) -> List[str]:
    """All files of a bundle as relative paths with '/', sorted; links and special files are BadInput."""
    found = []
    for folder, folders, names in os.walk(bundle_dir):
        for name in folders + names:
            path = os.path.join(folder, name)
            if os.path.islink(path) or not (os.path.isfile(path) or os.path.isdir(path)):
                raise BadInput("a bundle holds only plain files and folders", path, None, "remove it")
        found += [os.path.relpath(os.path.join(folder, name), bundle_dir).replace(os.sep, "/") for name in names]
    return sorted(found)


def write_sums(bundle_dir: str) -> None:
    """Write SHA256SUMS (the format of sha256sum) over every file but itself and its signature."""
    names = [name for name in listing(bundle_dir) if name not in (SUMS, SIGNATURE)]
    lines = [f"{files.sha256(os.path.join(bundle_dir, name))}  {name}\n" for name in names]
    files.write_text(os.path.join(bundle_dir, SUMS), "".join(lines))


def read_sums(path: str) -> Dict[str, str]:
    """{relative path: sha256} from a SHA256SUMS file; BadInput names the line that is wrong."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the checksums: {error}", path) from error
    if len(data) > MOST_BYTES:
        raise BadInput("the list of checksums is too long", path, f"at most {MOST_BYTES} bytes", AGAIN)
    sums = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"([0-9a-f]{64}) [ *](.+)\Z", line)
        if not match or not safe_path(match.group(2)) or match.group(2) in sums:
            raise BadInput(
                f"not a checksum line: {repr(line):.80}",
                f"{path}, line {number}",
                "64 hex digits, two blanks, a relative path, each path once",
            )
        sums[match.group(2)] = match.group(1)
    return sums


def check(bundle_dir: str) -> List[str]:
    """All that is wrong with a bundle's files, one line each; an empty list when everything is right."""
    try:
        manifest = load(bundle_dir)
        names = listing(bundle_dir)
        sums = read_sums(os.path.join(bundle_dir, SUMS))
    except JetmaskError as error:
        return [str(error)]
    found = [f"{name}: missing" for name in REQUIRED_FILES if name not in names]
    for name in names:
        if name in (SUMS, SIGNATURE):
            continue
        if name not in sums:
            found.append(f"{name}: not listed in {SUMS}")
        elif files.sha256(os.path.join(bundle_dir, name)) != sums[name]:
            found.append(f"{name}: changed (its SHA-256 is not the listed one)")
    found += [f"{name}: listed in {SUMS}, missing" for name in sums if name not in names]
    for variant in manifest.variants:
        path = paths.inside(bundle_dir, variant.file)
        if variant.file not in names:
            found.append(f"{variant.file}: missing, needed by variant {variant.name}")
        elif sums.get(variant.file) != variant.sha256 or os.path.getsize(path) != variant.bytes:
            found.append(f"{variant.file}: not the file that variant {variant.name} was measured with")
    return list(dict.fromkeys(found))


def verify(bundle_dir: str) -> None:
    """BadInput, listing everything found, unless all of a bundle's files are there and unchanged."""
    found = check(bundle_dir)
    if found:
        raise BadInput(
            "the bundle is damaged:\n    " + "\n    ".join(found[:20]),
            bundle_dir,
            f"every file as {SUMS} lists it",
            AGAIN,
        )
