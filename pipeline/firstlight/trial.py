"""Bring everything to a device as a deployment does, run `first-light` there, and bring its report home.

Nothing is switched: what runs there stays what it is, and the bundle lies beside it.
"""

import contextlib
import json
import os
import shlex
from typing import Any, NamedTuple

from jetson import files
from jetson.capture.source import parse as parse_source
from jetson.errors import BadInput, UsageError
from jetson.firstlight import engines
from jetson.firstlight.report import Report
from jetson.firstlight.step import Outcome
from pipeline import targets
from pipeline.deploy.deployment import Deployment, Parcel, say_on_stderr
from pipeline.deploy.device_bench import parse
from pipeline.deploy.provision import follower
from pipeline.deploy.settings import Settings as DeploySettings
from pipeline.deploy.ssh import LONG_S, Remote

NAME = "first-light.json"  # in incoming/ there
# A board by what it calls itself, and the name of its chip in the release of its system; the first that fits.
_TARGETS = (
    (("Orin Nano",), "orin-nano"),
    (("Xavier NX",), "xavier-nx"),
    (("TX2",), "tx2"),
    (("Nano", "BOARD: t210"), "nano"),
)


class Settings(NamedTuple):
    """What is tried there. `target`: whose predictions the times are held against, None: by what the board says."""

    sources: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    minutes: float = 10.0
    only: str = ""
    rebuild: bool = False
    target: str | None = None


class Trial:
    """One device's first light; `deploy`: the way there."""

    def __init__(self, remote: Remote, deploy: DeploySettings, contents: Parcel, settings: Settings) -> None:
        self.remote, self.settings = remote, settings
        self._deployment = Deployment(remote, deploy, contents, say_on_stderr)
        # A camera that is not there must not end it: the step on the device says so.
        self._deployment.sources = list(settings.sources) or ["synthetic://"]
        self._contents = contents

    def run(self) -> dict[str, Any]:
        """The report, as the device wrote it."""
        self._found: dict[str, Any] = {}
        self._deployment.arrive([("first light", self._run_there)], self._look)
        return self._found

    def _look(self) -> None:
        """The device has been asked; a camera that nobody named is taken from what it has."""
        facts = self._deployment.facts
        if not self.settings.sources:
            cameras = ["csi://0"] if facts.get("argus") == "yes" else facts.get("cameras", "").split()[:1]
            self._deployment.sources = cameras or ["synthetic://"]
        if self.remote.dry_run:
            return
        spec = self._service()
        if spec is not None and self._deployment.installed.health(spec):
            stop = f"docker stop {spec.get('name')}" if spec.get("kind") == "docker" else "sudo systemctl stop jetmask"
            raise UsageError(
                "a runner already serves on the device and uses its camera",
                self.remote.target,
                None,
                f"stop it there for the time: {stop}; start it again afterwards",
            )

    def _service(self) -> dict[str, Any] | None:
        """How a runner is started there; None where none was set up."""
        text = self.remote.run(["cat", f"{self._deployment.layout.state}/service.json"], check=False)
        with contextlib.suppress(ValueError):
            spec = json.loads(text)
            if isinstance(spec, dict) and isinstance(spec.get("url"), str):
                return spec
        return None

    def _words(self) -> list[str]:
        words = ["first-light", f"{self._deployment.inside}/bundles/{self._deployment.digest}"]
        for uri in self._deployment.sources:
            if parse_source(uri).live or self.settings.sources:
                words += ["--source", uri]
        for name in self.settings.variants:
            words += ["--variant", name]
        words += ["--minutes", f"{self.settings.minutes:g}"]
        words += ["--only", self.settings.only] if self.settings.only else []
        words += ["--rebuild"] if self.settings.rebuild else []
        guesses = self.predictions()
        words += ["--predictions", json.dumps(guesses)] if guesses else []
        return [*words, "--out", f"{self._deployment.inside}/incoming/{NAME}"]

    def predictions(self) -> dict[str, Any]:
        """{variant: {"latency_ms", "low_ms", "high_ms", "basis"}} of the engines that will be built."""
        from pipeline.latency.cli import predict_ms  # needs onnx, which the base install lacks

        kind = self.settings.target or target_of(self._deployment.facts)
        found: dict[str, Any] = {}
        if kind is None:
            return found
        contents = self._deployment.contents
        for variant in engines.choose(contents, self.settings.variants):
            guess = predict_ms(contents.path(variant), kind, variant.precision, variant.input_wh)
            found[variant.name] = {
                "target": kind,
                "latency_ms": round(guess.latency_ms, 3),
                "low_ms": guess.low_ms,
                "high_ms": guess.high_ms,
                "basis": guess.basis,
            }
        return found

    def _run_there(self) -> None:
        layout = self._deployment.layout
        path = f"{layout.state}/incoming/{NAME}"
        self.remote.run(f"mkdir -p {shlex.quote(layout.state)}/incoming && rm -f {shlex.quote(path)}")
        if self._deployment.gpu:
            self.remote.run(["mkdir", "-m", "700", "-p", f"{layout.state}/engines"])
        line = self._deployment.line(self._words())
        said = self.remote.run(
            line, check=False, follow=follower(say_on_stderr), limit_s=LONG_S + 120 * self.settings.minutes
        )
        if self.remote.dry_run:
            return
        text = self.remote.run(["cat", path], check=False)
        if not text:
            raise BadInput(
                "the device wrote no report", self.remote.target, None, "it said: " + " | ".join(said.splitlines()[-3:])
            )
        self._found = parse(text, "the device's report")
        self.remote.run(["rm", "-f", path, path.replace(".json", ".txt")])


def target_of(facts: dict[str, str]) -> str | None:
    """The kind of device that predictions are for, by what preflight has heard; None where none is known."""
    text = facts.get("model", "") + " " + facts.get("release", "")
    for words, name in _TARGETS:
        if any(word in text for word in words) and name in targets.TARGETS:
            return name
    return None


def text_of(found: dict[str, Any]) -> str:
    """A report that came home, as text."""
    report = Report(None, found["bundle"], found["stand_in"])
    for step in found["steps"]:
        report.add(step["step"], Outcome(step["status"], step["what"], {}), step["seconds"])
    return report.text()


def write(found: dict[str, Any], path: str) -> None:
    """The report as JSON, and as text beside it."""
    files.write_json(path, found)
    files.write_text(os.path.splitext(path)[0] + ".txt", text_of(found) + "\n")
