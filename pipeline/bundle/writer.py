"""Write everything a device needs into one folder: models, calibration, golden inputs, card, checksums."""

import datetime
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from jetson import files
from jetson.bundle import classes as class_list
from jetson.bundle import manifest, tarball
from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.errors import BadInput, UsageError
from jetson.evaluation import average_precision
from pipeline.bundle import golden
from pipeline.graphs import classes as onnx_classes
from pipeline.models.decode import DECODE
from pipeline.paths import replaced_folder

# The kinds of model file and how each is called inside a bundle.
KINDS = {"fp32": "{}.onnx", "fp16": "{}.fp16.onnx", "int8": "{}.int8.onnx", "int8-cpu": "{}.int8-cpu.onnx"}


def write(
    folder: str,
    models: Mapping[str, Mapping[str, Any]],
    variants: Sequence[Mapping[str, Any]],
    calibration: Mapping[str, Any] | None = None,
    decode: Mapping[str, Any] | None = None,
    card: str = "",
    provenance: Mapping[str, Any] | None = None,
    *,
    name: str = "facemask",
    default_variant: str | None = None,
    created: str | None = None,
    photos: str | None = None,
    key: str | None = None,
    classes: Classes | None = None,
) -> str:
    """Write a bundle and return its root digest: the SHA-256, in hex, of its SHA256SUMS.

    `models`: {model: {"fp32": path, "fp16": path, "int8": path, "int8-cpu": path,
    "tflite": {(w, h, precision): path}}}, each kind optional. `variants`: as in manifest.json without `sha256` and
    `bytes`; `file` is derived where it is absent. `calibration`: {model or file name: path, JSON object, or text of a
    .cache}. `card`: markdown. `photos`: a SPLIT_DIR to put in as eval/ (only when the user asked for it). `key`: an
    Ed25519 private key (PEM) to sign with.
    `classes`: default: what the model files say (`classes_of`).
    `created`: ISO 8601; the default is SOURCE_DATE_EPOCH or now. The same input gives the same bytes.

    It is written aside and renamed: `folder` is the old bundle or the whole new one. An existing folder is replaced
    only if it is a bundle. BadInput for a missing model or a manifest that would not be valid.
    """
    created = created or _now()
    classes = classes or classes_of(models)
    with replaced_folder(folder) as part:
        os.makedirs(os.path.join(part, "models"))
        _copy_models(part, models)
        entries = [_variant(part, entry) for entry in variants]
        _drop_unused(part, entries)
        _copy_calibration(part, calibration or {})
        document: dict[str, Any] = {
            "schema_version": manifest.version_for(classes.names),
            "name": name,
            "created": created,
            "classes": list(classes.names),
            "decode": dict(decode or DECODE),
            "preprocessing": manifest.PREPROCESSING,
            "default_variant": default_variant or _default(entries),
            "variants": entries,
            "provenance": dict(provenance or {}),
        }
        if classes != MASK_CLASSES:  # whose roles go without saying
            document["roles"] = dict(zip(*classes, strict=True))
        wrong = manifest.problems(document)
        if wrong:
            raise BadInput("the bundle's manifest would be wrong:\n    " + "\n    ".join(wrong[:10]), folder)
        path = os.path.join(part, tarball.MANIFEST)
        files.write_json(path, document)
        files.write_text(os.path.join(part, "MODEL_CARD.md"), card or f"# {name}\n")
        # Of other classes the drawn heads may show nothing; photographs that are in the bundle anyway do.
        own = photos is not None and not classes.are_masks
        golden.write(part, _fullest(photos, classes) if own and photos is not None else None)
        if photos is not None:
            _copy_photos(part, photos, classes)
        files.write_json(os.path.join(part, "sbom.cdx.json"), sbom(document))
        seal(part)
        if key is not None:
            sign(part, key)
        manifest.verify(part)
        tarball.check_sizes(part)
        digest = root_digest(part)
    return digest


def classes_of(models: Mapping[str, Mapping[str, Any]], roles: Sequence[str] = ()) -> Classes:
    """The classes that the model files tell apart, with `roles` ("CLASS=ROLE") over what they say. BadInput where two
    models differ, UsageError for a role that is none."""
    found: dict[str, Classes] = {}
    for model, kinds in models.items():
        path = next((kinds[kind] for kind in KINDS if kinds.get(kind) is not None), None)
        if path is not None and os.path.isfile(path):
            found[model] = onnx_classes.of_file(path)
    if len({classes.names for classes in found.values()}) > 1:
        raise BadInput(
            "the models have different classes",
            "; ".join(f"{model}: {', '.join(classes.names)}" for model, classes in found.items()),
            "one list of classes for a bundle",
            "write a bundle for each",
        )
    base = next(iter(found.values()), MASK_CLASSES)
    given = {}
    for text in roles:
        name, _, role = text.rpartition("=")
        given[name] = role
    wrong = class_list.problems(list(base.names), given)
    if wrong:
        raise UsageError("; ".join(wrong[:3]), "--role", "CLASS=ROLE, a class of " + ", ".join(base.names))
    return class_list.make(base.names, {**dict(zip(*base, strict=True)), **given})


def seal(bundle_dir: str) -> None:
    """Announce every file's size in manifest.json, then write SHA256SUMS: the last two steps of writing a bundle."""
    path = os.path.join(bundle_dir, tarball.MANIFEST)
    document = files.read_json(path)
    document["files"] = {
        name: os.path.getsize(os.path.join(bundle_dir, name))
        for name in manifest.listing(bundle_dir)
        if name not in tarball.UNANNOUNCED
    }
    files.write_json(path, document)
    manifest.write_sums(bundle_dir)


def root_digest(bundle_dir: str) -> str:
    """The SHA-256 of SHA256SUMS, in hex: the one value that stands for the whole bundle, signed or not."""
    return files.sha256(os.path.join(bundle_dir, manifest.SUMS))


def sign(bundle_dir: str, key: str) -> None:
    """Write SHA256SUMS.sig: 64 bytes, the Ed25519 signature of SHA256SUMS by the private key in the PEM file `key`."""
    private = private_key(key)
    with open(os.path.join(bundle_dir, manifest.SUMS), "rb") as file:
        signature = private.sign(file.read())
    files.write_bytes(os.path.join(bundle_dir, manifest.SIGNATURE), signature)


def make_key(path: str) -> str:
    """Write a new private key to `path` (mode 0600) and its public key to `path`.pub; returns the latter's path."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if os.path.exists(path):
        raise UsageError(
            "the file already exists", path, "a new file", "choose another name: keys are never overwritten"
        )
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise BadInput("no such folder to write the key into", path, "a folder", "create it first")
    private = Ed25519PrivateKey.generate()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    files.write_bytes(
        path + ".pub",
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
    return path + ".pub"


def sbom(document: Mapping[str, Any]) -> dict[str, Any]:
    """The bundle's bill of materials, CycloneDX 1.5: each model file with its hash, and what made it."""
    components, seen = [], set()
    for variant in document["variants"]:
        if variant["file"] in seen:
            continue
        seen.add(variant["file"])
        components.append(
            {
                "type": "machine-learning-model",
                "name": variant["file"],
                "version": variant["sha256"][:12],
                "bom-ref": variant["file"],
                "hashes": [{"alg": "SHA-256", "content": variant["sha256"]}],
            }
        )
    tools = document["provenance"].get("versions", {})
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(components, sort_keys=True) + document["created"])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": document["created"],
            "component": {"type": "application", "name": document["name"], "bom-ref": document["name"]},
            "tools": {
                "components": [
                    {"type": "library", "name": tool, "version": str(version)}
                    for tool, version in sorted(tools.items())
                ]
            },
        },
        "components": components,
    }


def _now() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch and not epoch.isdecimal():
        raise UsageError(f"SOURCE_DATE_EPOCH is {epoch!r}", "the environment", "seconds since 1970, a whole number")
    moment = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC) if epoch else datetime.datetime.now(datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _copy(source: str, target: str) -> None:
    try:
        with open(source, "rb") as file:
            content = file.read()
    except OSError as error:
        raise BadInput(f"cannot read a file of the bundle: {error.strerror}", source) from error
    files.write_bytes(target, content)


def tflite_name(model: str, wh: Sequence[int], precision: str) -> str:
    """How a LiteRT file is called inside a bundle."""
    return f"{model}-{wh[0]}x{wh[1]}.{precision}.tflite"


def _copy_models(part: str, models: Mapping[str, Mapping[str, Any]]) -> None:
    for model, kinds in models.items():
        for kind, source in kinds.items():
            if kind == "tflite":
                for (width, height, precision), path in source.items():
                    _copy(path, os.path.join(part, "models", tflite_name(model, (width, height), precision)))
            elif kind in KINDS:
                if source is not None:
                    _copy(source, os.path.join(part, "models", KINDS[kind].format(model)))
            else:
                raise UsageError(
                    f"unknown kind of model file {kind!r}",
                    f"model {model}",
                    "one of " + ", ".join([*KINDS, "tflite"]),
                )


def _drop_unused(part: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Remove model files that no variant uses: what a gate kept out must not travel along."""
    used = {entry["file"] for entry in entries}
    for name in os.listdir(os.path.join(part, "models")):
        if "models/" + name not in used:
            os.unlink(os.path.join(part, "models", name))


def file_of(model: str, wh: Sequence[int], precision: str, runtimes: Sequence[str]) -> str:
    """The path inside the bundle of the file that a variant uses (fp32 and TensorRT's weakly typed fp16 share one)."""
    if list(runtimes) == ["litert"]:
        return "models/" + tflite_name(model, wh, precision)
    if precision == "fp16" and "onnxruntime" not in runtimes:
        return "models/" + KINDS["fp32"].format(model)
    return "models/" + KINDS[precision].format(model)


def _variant(part: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    variant = dict(entry)
    missing = [key for key in ("name", "model", "input_wh", "precision", "runtimes") if key not in variant]
    if missing:
        raise BadInput("a variant lacks " + ", ".join(missing), str(variant.get("name", entry)))
    variant["input_wh"] = list(variant["input_wh"])
    variant["runtimes"] = list(variant["runtimes"])
    variant.setdefault(
        "file", file_of(variant["model"], variant["input_wh"], variant["precision"], variant["runtimes"])
    )
    path = os.path.join(part, variant["file"])
    if not manifest.safe_path(variant["file"]) or not os.path.isfile(path):
        raise BadInput(
            f"variant {variant['name']} needs a file that is not given",
            variant["file"],
            "one of " + ", ".join(sorted(os.listdir(os.path.join(part, "models")))),
        )
    variant["sha256"], variant["bytes"] = files.sha256(path), os.path.getsize(path)
    if variant["file"].endswith(".onnx") and variant.get("sparsity") is None:
        variant["sparsity"] = _sparsity(path)
        if variant["sparsity"] is None:
            del variant["sparsity"]
    variant.setdefault("macs", 0)
    variant.setdefault("ap", {})
    variant.setdefault("ap_reason", {})
    variant.setdefault("targets", [])
    for runtime in variant["runtimes"]:
        if variant["ap"].setdefault(runtime, None) is None:
            variant["ap_reason"].setdefault(runtime, "not evaluated when the bundle was written")
    return variant


def _sparsity(path: str) -> str | None:
    """The pattern of a model's weights, which the device's builder must be told of."""
    try:
        from pipeline.graphs import sparsity

        return sparsity.pattern_of(path)
    except ModuleNotFoundError:  # onnx, of the extra `train`; without it no model of this pattern was made here
        return None


def _default(entries: Sequence[Mapping[str, Any]]) -> str:
    """fp32 at the middle size runs everywhere; without it, whatever ONNX Runtime can run, or the first."""
    for wanted in ((416, 256), None):
        for entry in entries:
            if (
                "onnxruntime" in entry["runtimes"]
                and entry["precision"] == "fp32"
                and (wanted is None or tuple(entry["input_wh"]) == wanted)
            ):
                return entry["name"]
    return next(
        (entry["name"] for entry in entries if "onnxruntime" in entry["runtimes"]),
        entries[0]["name"] if entries else "",
    )


def _copy_calibration(part: str, calibration: Mapping[str, Any]) -> None:
    if not calibration:
        return
    folder = os.path.join(part, "calibration")
    os.makedirs(folder)
    for name, content in calibration.items():
        is_file = isinstance(content, os.PathLike) or (
            isinstance(content, str) and "\n" not in content and os.path.isfile(content)
        )
        if not name.endswith((".json", ".cache")):
            name += os.path.splitext(os.fspath(content))[1] if is_file else ".json"
        target = os.path.join(folder, name)
        if is_file:
            _copy(os.fspath(content), target)
        elif isinstance(content, bytes):
            files.write_bytes(target, content)
        elif isinstance(content, str):
            files.write_text(target, content)
        else:
            files.write_json(target, content)


def _copy_photos(part: str, split_dir: str, classes: Classes) -> None:
    truths = average_precision.load_split(split_dir, classes.names)
    os.makedirs(os.path.join(part, "eval"))
    _copy(os.path.join(split_dir, "annotations.json"), os.path.join(part, "eval", "annotations.json"))
    for truth in truths:
        # Under the name that annotations.json has for it: eval/ is to be a SPLIT_DIR as this one is.
        name = os.path.relpath(truth.file, split_dir)
        if not manifest.safe_path(name) or name == "annotations.json":
            raise BadInput("a photograph is not inside the data folder", truth.file, f"a file under {split_dir}")
        target = os.path.join(part, "eval", name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _copy(truth.file, target)


def _fullest(split_dir: str, classes: Classes) -> list[Any]:
    """The photographs with the most labelled boxes, uint8 (h, w, 3) BGR, as many as a self-test has."""
    truths = average_precision.load_split(split_dir, classes.names)
    truths = sorted(truths, key=lambda truth: -len(truth.xyxy))[: golden.IMAGES]
    return [average_precision.read_image(truth) for truth in truths]


def private_key(path: str) -> Any:
    """The Ed25519 key in a PEM file; BadInput where there is none."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        with open(path, "rb") as file:
            private = serialization.load_pem_private_key(file.read(), None)
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            f"cannot use the key: {error}",
            path,
            "an unencrypted Ed25519 private key in PEM form",
            "make one with `jetmask bundle key FILE`",
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise BadInput(
            "the key is of the wrong kind", path, "an Ed25519 private key", "make one with `jetmask bundle key FILE`"
        )
    return private
