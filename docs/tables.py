"""Writes docs/reference/metrics.md, exit-codes.md and manifest.md from the code.

python docs/tables.py
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jetson import errors  # noqa: E402
from jetson.cli import INTERRUPTED  # noqa: E402
from jetson.web import prometheus  # noqa: E402

FACES = {"with_mask": 1}
# A runner with every part switched on: what it exports is all there is.
STATE: dict[str, Any] = {
    "version": "",
    "bundle": "",
    "variant": {"name": "", "runtime": ""},
    "health": {"ok": True},
    "uptime_s": 1.0,
    "memory_bytes": 1,
    "fps": 1.0,
    "results": 1,
    "engine_errors": 0,
    "reloads": 0,
    "failed_reloads": 0,
    "events_file": {},
    "latency_ms": {"total": {"p50": 1.0}},
    "classes": list(FACES),
    "roles": {"with_mask": "ok"},
    "cameras": [
        {
            "name": "door",
            "source": "csi://0",
            "status": "live",
            "camera_fps": 1.0,
            "result_fps": 1.0,
            "frame_age_ms": 1.0,
            "frozen": False,
            "dark": False,
            "frames": 1,
            "dropped": 0,
            "restarts": 0,
            "times_lost": 0,
            "now": FACES,
            "persons": FACES,
            "drift": {"ratio": 0.5, "look": False, "learned": 1.0},
            "lines": [{"name": "entry", "in": FACES, "out": FACES}],
            "zones": [{"name": "queue", "now": FACES, "entered": FACES}],
        }
    ],
    "server": {"connections": 1, "streams": 1, "requests": 1, "refused": 0, "dropped": 0},
    "board": {"power_mw": {"in": 1}, "temperature_c": {"cpu": 1}, "throttled": False},
    "governor": {"count": 1, "limits": [{"goal": "watts", "limit": 5, "value": 4}]},
    "tradeoff": {
        "variants": [{"name": "", "runtime": "", "agreement": 1, "low": 1, "high": 1, "frames": 1, "latency_p50_ms": 1}]
    },
    "alerts": {
        "told": 0,
        "lost": 0,
        "gone": {},
        "receivers": [{"name": "office", "waiting": 0, "sent": 0, "dropped": 0}],
    },
    "media": {"bytes": 0, "dropped": 0},
    "mqtt": {
        "connected": True,
        "waiting": 0,
        "max_records": 1,
        "disk_bytes": 1,
        "published": 1,
        "refused": 0,
        "dropped": {"limit": 1},
    },
}
UNITS = {
    "_seconds": "s",
    "_bytes": "bytes",
    "_ms": "ms",
    "_celsius": "°C",
    "_mw": "mW",
    "_fps": "1/s",
    "_per_second": "1/s",
}


def metrics() -> Iterator[str]:
    """A row for each metric that a runner exports."""
    yield "| metric | type | labels | unit | meaning |"
    yield "|---|---|---|---|---|"
    for family in prometheus._Collector(STATE).collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        unit = next((unit for end, unit in UNITS.items() if family.name.endswith(end)), "")
        labels = ", ".join(f"`{label}`" for label in (family.samples[0].labels if family.samples else {}))
        yield f"| `{name}` | {family.type} | {labels} | {unit} | {family.documentation} |"


def exit_codes() -> Iterator[str]:
    """A row for each exit code."""
    yield "| code | meaning | class |"
    yield "|---:|---|---|"
    yield "| 0 | Done. | |"
    for kind in (errors.JetmaskError, *errors.JetmaskError.__subclasses__()):
        text = (kind.__doc__ or "").splitlines()[0]
        text = (
            "An internal error, or a failure with a message that none of the others fits."
            if kind.exit_code == 1
            else text
        )
        yield f"| {kind.exit_code} | {text} | `{kind.__name__}` |"
    yield f"| {INTERRUPTED} | Interrupted (Ctrl-C). | |"


def schema(node: dict[str, Any], top: dict[str, Any], path: str = "") -> Iterator[str]:
    """A row for each key of a JSON schema, those of objects within it too."""
    if "$ref" in node:
        node = top["$defs" if "$defs" in top else "definitions"][node["$ref"].rsplit("/", 1)[-1]]
    for key, value in node.get("properties", {}).items():
        target = value
        if "$ref" in value:
            target = top["$defs" if "$defs" in top else "definitions"][value["$ref"].rsplit("/", 1)[-1]]
        kind = target.get("type", "")
        kind = " or ".join(kind) if isinstance(kind, list) else kind
        allowed = target.get("enum") or (
            [target["const"]] if "const" in target else target.get("items", {}).get("enum")
        )
        limits = [f"one of {', '.join(f'`{word}`' for word in allowed)}"] if allowed else []
        limits += [f"`{target['pattern']}`"] if "pattern" in target else []
        limits += [
            f"{name} {target[name]}" for name in ("minimum", "maximum", "minItems", "maxItems") if name in target
        ]
        text = "; ".join([*([target["description"]] if "description" in target else []), *limits]).replace("|", "\\|")
        yield f"| `{path}{key}` | {kind} | {'yes' if key in node.get('required', ()) else 'no'} | {text} |"
        yield from schema(target, top, f"{path}{key}.")
        if isinstance(target.get("items"), dict):
            yield from schema(target["items"], top, f"{path}{key}[].")


def main() -> None:
    """Write the pages."""
    manifest = json.loads((ROOT / "jetson" / "bundle" / "manifest.schema.json").read_text(encoding="utf-8"))
    pages = {
        "metrics.md": (
            "# Metrics",
            "A runner answers `/metrics` in Prometheus' text format. Groups that are off (governor, MQTT, drift, "
            "zones, trade-off) are absent, and so is what a board does not report. Written from the code by "
            "`python docs/tables.py`.",
            metrics(),
        ),
        "exit-codes.md": (
            "# Exit codes",
            "The same for every verb of `jetmask` and of `python3 -m jetson`. Written from the code by "
            "`python docs/tables.py`.",
            exit_codes(),
        ),
        "manifest.md": (
            "# A bundle's manifest",
            "The keys of `manifest.json`, from `jetson/bundle/manifest.schema.json`. Written by "
            "`python docs/tables.py`.",
            ["| key | type | required | meaning and limits |", "|---|---|---|---|", *schema(manifest, manifest)],
        ),
    }
    for name, (title, text, rows) in pages.items():
        page = ROOT / "docs" / "reference" / name
        page.write_text("\n".join([title, "", text, "", *rows, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
