"""`jetmask bench --device`: run the device's own bench over ssh, bring its JSON home, hold predictions against it."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jetson import files
from jetson.bench.measure import Settings
from jetson.bench.result import text_table
from jetson.bundle import manifest
from jetson.cli import table
from jetson.errors import BadInput, UsageError
from pipeline import targets
from pipeline.deploy import layout, options
from pipeline.deploy.ssh import LONG_S, Remote


def measure(
    remote: Remote,
    run: list[str],
    cwd: str,
    environment: Mapping[str, str],
    bundle: str,
    words: list[str],
    seconds: float = 2.0,
) -> dict[str, Any]:
    """What `bench` of the device package prints as JSON; {} in a dry run. `run`: the words before a verb there.

    `seconds`: how long it measures each variant, for the time that it may take.
    """
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
    text = remote.run(
        f"cd {shlex.quote(cwd)} && {variables} {shlex.join([*run, 'bench', bundle, '--json', *words])}",
        limit_s=LONG_S + 100 * seconds,
    )
    return {} if remote.dry_run else parse(text, "the device's bench")


def parse(text: str, what: str) -> dict[str, Any]:
    """The JSON object in what a device's command printed; a tool's chatter before it is skipped."""
    for candidate in (text, text[max(0, text.find("{")) :]):
        try:
            value = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    raise BadInput(f"{what} cannot be read", None, "JSON", "it printed: " + text[-300:])


def beside_predictions(measured: dict[str, Any], bundle_dir: str, target: str) -> dict[str, Any]:
    """`measured` with a `predicted` entry in each row that the model of `target` covers.

    {"latency_ms", "low_ms", "high_ms", "basis", "off_percent", "inside": whether the measured median of inference lies
    in the predicted interval, None where its error is unknown}. UsageError where the bundle here is another one.
    """
    from pipeline.latency.cli import predict_ms  # needs onnx, which the base install lacks

    kind = targets.target(target)
    runtime = "tensorrt" if kind.is_jetson else "onnxruntime"
    contents = manifest.load(bundle_dir)
    for row in measured["rows"]:
        row["predicted"] = None
        # What this GPU has no arithmetic for is not predicted, only measured (--int8-anyway).
        if row["runtime"] != runtime or row["infer_ms"] is None or row.get("note"):
            continue
        variant = contents.variant(row["variant"])
        if (variant.bytes, variant.macs) != (row["bytes"], row["macs"]):
            raise UsageError(
                f"{variant.name} on this machine is a different model from the device's",
                bundle_dir,
                None,
                "give --bundle the one that was deployed",
            )
        precision = variant.precision.removesuffix("-cpu")
        found = predict_ms(contents.path(variant), target, precision, variant.input_wh)
        real = row["infer_ms"]["p50"]
        row["predicted"] = {
            "latency_ms": round(found.latency_ms, 3),
            "low_ms": found.low_ms,
            "high_ms": found.high_ms,
            "basis": found.basis,
            "off_percent": round(100 * (found.latency_ms / real - 1), 1),
            "inside": None if found.low_ms is None else found.low_ms <= real <= found.high_ms,
        }
    measured["predicted_for"] = target
    return measured


def text_predictions(measured: dict[str, Any]) -> str:
    """Measured beside predicted, as a short table."""
    rows = []
    for row in measured["rows"]:
        guess = row.get("predicted")
        if guess is not None:
            inside = {True: "inside", False: "outside", None: "error unknown"}[guess["inside"]]
            rows.append(
                [
                    row["variant"],
                    f"{row['infer_ms']['p50']:.2f}",
                    f"{guess['latency_ms']:.2f}",
                    f"{guess['off_percent']:+.0f} %",
                    inside,
                ]
            )
    if not rows:
        return f"no row here is one that the model of {measured['predicted_for']} covers"
    return table(["inference, ms", "measured", "predicted", "off by", "90 % interval"], rows)


@dataclass(frozen=True)
class DeviceBench:
    """Where to measure. `device`: as ssh knows it; `ssh`: further words for it; `state`: where bundles are kept there;
    `bundle`: the same bundle here, to predict from for `target`; `out`: a file for the JSON."""

    device: str
    bundle: str
    ssh: str = ""
    state: str = layout.STATE
    target: str | None = None
    out: str | None = None
    as_json: bool = False


def run(where: DeviceBench, what: Settings) -> int:
    """Measure on the device and print."""
    if what.source or what.data:
        raise UsageError(
            "--source and --data name things on this machine",
            "jetmask bench --device",
            "the bundle alone is measured there",
            "log in there and run `python3 -m jetson bench` for the others",
        )
    words = ["--threads", str(what.threads), "--seconds", str(what.seconds)]
    words += ["--runtime", what.runtime] if what.runtime else []
    words += [word for name in what.variants for word in ("--variant", name)]
    words += ["--all"] if what.everything else []
    words += ["--int8-anyway"] if what.int8_anyway else []
    with Remote(where.device, options.words(where.ssh, "ssh")) as remote:
        spec = parse(remote.fetch(f"{where.state}/service.json"), "the device's service.json")
        inside = layout.STATE if spec["kind"] == "docker" else where.state
        found = measure(remote, spec["run"], spec["cwd"], spec.get("env", {}), f"{inside}/current", words, what.seconds)
    if where.target:
        found = beside_predictions(found, where.bundle, where.target)
    if where.out:
        files.write_json(where.out, found)
    print(json.dumps(found) if where.as_json else text_table(found))
    if where.target and not where.as_json:
        print(text_predictions(found))
    return 0
