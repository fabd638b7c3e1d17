"""One deployment: everything that is done to bring one bundle to one device, stage by stage.

Up to the switch nothing that runs is touched: files arrive under names of their own and get their final name when they
are whole. The switch itself runs on the device in a process of its own, so that a link that drops cannot cut it in two.
"""

import contextlib
import json
import logging
import os
import shlex
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jetson import doctor, files
from jetson.bundle import manifest, signing
from jetson.engine import int8
from jetson.errors import DeviceMismatch, JetmaskError, UsageError
from jetson.install import installer as install
from jetson.install import leftovers
from pipeline.deploy import cameras, configuration, options, preflight, provision
from pipeline.deploy import layout as device
from pipeline.deploy.device_bench import measure, parse
from pipeline.deploy.installed import Installed
from pipeline.deploy.layout import Layout
from pipeline.deploy.provision import follower
from pipeline.deploy.settings import Settings
from pipeline.deploy.ssh import LONG_S, MINUTES_S, QUICK_S, Remote

log = logging.getLogger(__name__)

Say = Callable[[str], None]
OnStage = Callable[[int, int, str], None]
Stage = tuple[str, Callable[[], None]]


class Parcel(NamedTuple):
    """What is sent, ready on this machine: the bundle's folder, the device package's folder, the package's id."""

    bundle: str
    package: str
    code_id: str


@contextlib.contextmanager
def parcel(bundle: str) -> Iterator[Parcel]:
    """Unpack the bundle (a folder or a tar file) and write the device package, once for any number of devices."""
    with tempfile.TemporaryDirectory(prefix="jetmask-deploy-") as package, device.unpack(bundle) as folder:
        yield Parcel(folder, package, device.write_package(package))


def say_on_stderr(text: str) -> None:
    """Progress for people."""
    log.info(text)


def service_kind(settings: Settings) -> str:
    """How the runner is to be kept running; UsageError for options that do not go together."""
    kind = settings.service or ("systemd" if settings.no_container else "docker")
    if settings.no_container == (kind == "docker"):
        raise UsageError(f"--service {kind} goes with{'out' if settings.no_container else ''} --no-container only")
    return str(kind)


class Deployment:
    """One deployment of a parcel to one device; each method is one stage.

    `say`: gets what there is to tell. `on_stage(number, count, title)` is
    called before each stage; what it raises ends the deployment there, and before the last stage nothing that runs has
    been touched. `lazy`: a device that runs this bundle in this way already, and is healthy, is not switched.
    `warnings`: what went wrong without making the deployment a failed one.
    """

    def __init__(
        self,
        remote: Remote,
        settings: Settings,
        contents: Parcel,
        say: Say = say_on_stderr,
        on_stage: OnStage | None = None,
        lazy: bool = False,
    ) -> None:
        settings, self.configuration = configuration.merged(settings)
        self.remote, self.settings, self.parcel, self.lazy, self._say = remote, settings, contents, lazy, say
        self._on_stage = on_stage or (lambda number, count, title: say(f"[{number}/{count}] {title}"))
        self.kind = service_kind(settings)
        self.sources = list(settings.source)
        self.layout = Layout(settings.root, settings.state, contents.code_id)
        self.installed = Installed(remote, settings, self.layout)
        self.facts: dict[str, str] = {}
        self.times: dict[str, float] = {}
        self.warnings: list[str] = []

    def run(self) -> dict[str, Any]:
        """All stages in order; returns {target, digest, image, code, switched, measured, removed, times_s, url}."""
        layout = self.layout
        stages = [
            *self._arrival(),
            ("build engines", lambda: self._build(layout)),
            ("self-test", lambda: self._self_test(layout)),
            ("measure", lambda: self._measure(layout)),
            ("activate and watch", lambda: self._switch(layout)),
        ]
        self._do(stages)
        self._timed("remove older releases", self._clean)
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return {
            "target": self.remote.target,
            "digest": self.digest,
            "image": layout.image,
            "code": layout.code_id,
            "switched": self.switched,
            "measured": self.measured,
            "removed": self.removed,
            "times_s": self.times,
            "url": f"http://{host}:{self.settings.port}/",
        }

    def arrive(self, then: Sequence[Stage], look: Callable[[], None] = lambda: None) -> None:
        """Bring package, image or Python, and bundle to the device, switch nothing, and do the stages of `then`.

        `look` is called once the device has been asked what it has (`facts`), and may still change `sources`.
        """
        here, (title, ask), *rest = self._arrival()

        def asked() -> None:
            ask()
            look()

        self._do([here, (title, asked), *rest, *then])

    def _arrival(self) -> list[Stage]:
        """The stages until the bundle is there, in its place, whole."""
        layout, folder = self.layout, self.parcel.bundle
        return [
            ("check the bundle here", lambda: self._check_here(folder)),
            ("ask the device", lambda: self._preflight(layout, folder)),
            ("send the device package", lambda: self._send_package(layout, self.parcel.package)),
            ("prepare " + ("the image" if self.kind == "docker" else "Python"), lambda: self._prepare(layout)),
            ("send and install the bundle", lambda: self._send_bundle(layout, folder)),
        ]

    def _do(self, stages: Sequence[Stage]) -> None:
        for number, (title, stage) in enumerate(stages, 1):
            self._on_stage(number, len(stages), title)
            self._timed(title, stage)

    def line(self, words: list[str]) -> str:
        """The shell line that runs a verb of the device package there, in its container or venv."""
        return self._verb(self.layout, words)

    def _timed(self, title: str, stage: Callable[[], None]) -> None:
        started = time.monotonic()
        stage()
        self.times[title] = round(time.monotonic() - started, 2)

    def _check_here(self, folder: str) -> None:
        keys = signing.read_keys(self.settings.key) if self.settings.key else None
        self.digest = install.check(folder, self.settings.digest, keys)
        self.contents = manifest.load(folder)
        self.variant = self.contents.variant(self.settings.variant)
        self.measured: dict[str, Any] | None = None
        self._say(f"  {self.contents.name}, {len(self.contents.variants)} variants, root digest {self.digest}")

    def _preflight(self, layout: Layout, folder: str) -> None:
        script = preflight.script(layout, self.settings.python, self.settings.docker, self.sources)
        answer = self.remote.run("sh -s", stdin=script, limit_s=2 * QUICK_S)
        if self.remote.dry_run:
            self.facts = {"uid": "1000", "gid": "1000", "user": "user", "python": "3.6", "home": "~"}
            self.gpu = not self.settings.no_gpu
            self.sources = self.sources or ["SOURCE"]
        else:
            self.facts = preflight.parse(answer)
            self.gpu = preflight.gpu_wanted(self.facts, self.settings)
            if not self.sources:
                raise cameras.ask_for_source(self.facts)
            found = preflight.judge(
                self.facts, self.settings, self.kind, layout, _size_kb(folder), self.sources, self.builds_engines()
            )
            bad = [finding for finding in found if finding.level == "bad"]
            self._say(textwrap.indent(doctor.show([finding for finding in found if finding not in bad]), "  "))
            if bad:
                raise DeviceMismatch(
                    "the device is not ready:\n" + textwrap.indent(doctor.show(bad), "  "), self.remote.target
                )
        self.jetpack, *self.bases = device.jetpack(self.facts)
        self._choose_variant()

    def _choose_variant(self) -> None:
        """Nobody named a variant: on a GPU, the default's FP16 form. A Nano computes FP16 twice as fast as FP32, and it
        costs a tenth of a point; the bundle's default is what runs everywhere."""
        same = [
            v
            for v in self.contents.variants
            if v.precision == "fp16"
            and "tensorrt" in v.runtimes
            and (v.model, v.input_wh) == (self.variant.model, self.variant.input_wh)
        ]
        if not self.settings.variant and self.gpu and self.variant.precision == "fp32" and same:
            self.variant = same[0]
            self._say(f"  {self.variant.name} will run there (another: --variant NAME)")

    def builds_engines(self) -> bool:
        """Whether this deployment builds TensorRT engines on the device."""
        return self.gpu and not self.settings.no_engines and "tensorrt" in self.variant.runtimes

    def _send_package(self, layout: Layout, package: str) -> None:
        code, arriving = shlex.quote(layout.code), f"{layout.root}/incoming/{layout.code_id}"
        check = f"cd {code} 2>/dev/null && sha256sum --quiet -c SHA256SUMS >/dev/null 2>&1"
        if self.remote.dry_run or self.remote.code(check):
            self.remote.run(["mkdir", "-p", arriving])
            self.remote.copy(package + "/", arriving + "/")
            # Where the answer is lost on the way the line runs again, and finds its work done.
            self.remote.run(
                f"({check}) || {{ cd {shlex.quote(arriving)} && sha256sum --quiet -c SHA256SUMS && "
                f"rm -rf {code} && cd / && mv {shlex.quote(arriving)} {code}; }}"
            )

    def _prepare(self, layout: Layout) -> None:
        if self.kind == "docker":
            self._prepare_image(layout)
        else:
            self._prepare_python(layout)

    def _prepare_image(self, layout: Layout) -> None:
        docker = self.settings.docker
        flags = device.container_flags(layout, self.facts, self.sources, self.gpu)
        if self.settings.int8_anyway:
            flags += ["-e", f"{int8.ENVIRONMENT}=1"]
        self.run_words = [docker, "run", "--rm", *flags, layout.image]
        self.inside = device.STATE
        base, build_base = self.bases
        provision.image(
            self.remote,
            self.settings,
            layout,
            {
                "BASE": base,
                "BUILD_BASE": build_base,
                "JETPACK": self.jetpack,
                "GPU": str(int(self.gpu)),
                "VERSION": layout.code_id,
                **dict(pair.split("=", 1) for pair in device.csv_mounts(self.facts)[1:]),
            },
            self._say,
        )

    def _prepare_python(self, layout: Layout) -> None:
        self.inside = layout.state
        first = ["/usr/bin/env", f"{int8.ENVIRONMENT}=1"] if self.settings.int8_anyway else []
        if self.settings.use_python:
            self.run_words = [*first, self.settings.python, "-m", "jetson"]
            return
        self.run_words = [*first, f"{layout.venv}/bin/python", "-m", "jetson"]
        provision.modules(
            self.remote,
            self.settings,
            layout,
            device.pins(self.facts["python"]),
            self.gpu,
            self.facts.get("venv") == "yes",
            self._say,
        )

    def _send_bundle(self, layout: Layout, folder: str) -> None:
        arriving = f"{layout.state}/incoming/{self.digest}"
        installed = layout.bundle(self.digest)
        verify = device.in_code(
            layout, [self.settings.python, "-m", "jetson", "verify", installed, "--digest", self.digest]
        )
        if not self.remote.dry_run and self.remote.code(verify, MINUTES_S) == 0:
            self._say("  it is already there")
            return
        self.remote.run(["mkdir", "-p", arriving])
        # What the bundle that runs now has in common with the new one is not sent.
        self.remote.copy(os.path.join(folder, ""), arriving + "/", [f"--copy-dest={layout.state}/current/"])
        words = [self.settings.python, "-m", "jetson", "install", arriving, "--stage", "--digest", self.digest]
        if self.settings.key:
            key = f"{layout.state}/incoming/key.pub"
            self.remote.copy(self.settings.key, key)
            words += ["--key", key]
        self.remote.run(device.in_code(layout, words), limit_s=MINUTES_S)
        self.remote.run(["rm", "-rf", arriving])

    def _verb(self, layout: Layout, words: list[str]) -> str:
        if self.kind == "docker":
            return shlex.join([*self.run_words, *words])
        return device.in_code(layout, [*self.run_words, *words])

    def _build(self, layout: Layout) -> None:
        if not self.builds_engines():
            self._say(
                "  none: "
                + (
                    "this device has no GPU that is used"
                    if not self.gpu
                    else "not wanted"
                    if self.settings.no_engines
                    else f"{self.variant.name} does not run on TensorRT"
                )
            )
            return
        self.remote.run(["mkdir", "-m", "700", "-p", f"{layout.state}/engines"])
        bundle = f"{self.inside}/bundles/{self.digest}"
        self.remote.run(
            self._verb(layout, ["build", bundle, "--variant", self.variant.name]),
            follow=follower(self._say),
            limit_s=LONG_S,
        )

    def _self_test(self, layout: Layout) -> None:
        problems = self._problems(layout)
        default = self.contents.variant(self.settings.variant)
        if problems and self.variant is not default:
            self._say(f"  {self.variant.name} does not work there: {problems[0]}\n  {default.name} will run instead")
            self.variant = default
            problems = self._problems(layout)
        if problems:
            raise DeviceMismatch(
                "the bundle does not pass its self-test on the device:\n    " + "\n    ".join(problems),
                self.remote.target,
                None,
                "nothing was activated; `python3 -m jetson doctor` on the device shows what it lacks",
            )

    def _problems(self, layout: Layout) -> list[str]:
        """What the self-test of the variant finds on the device."""
        words = [
            "verify",
            f"{self.inside}/bundles/{self.digest}",
            "--self-test",
            "--variant",
            self.variant.name,
            "--json",
        ]
        line = self._verb(layout, words)
        limit_s = LONG_S if self.gpu else MINUTES_S  # it builds the engine that is not there yet
        text = self.remote.run(line, check=False, limit_s=limit_s)
        if self.remote.dry_run:
            return []
        if not text.strip():  # it did not come to an answer; told with what docker or Python said instead
            text = self.remote.run(line, limit_s=limit_s)
        answer = parse(text, "the self-test")
        if not answer.get("ok"):
            return answer.get("problems") or ["it does not say why"]
        self._say(
            "  {variant} on {runtime}: {faces} faces in {images} images as expected".format(**answer["self_test"])
        )
        return []

    def _measure(self, layout: Layout) -> None:
        if self.settings.no_bench:
            return
        self.measured = measure(
            self.remote,
            self.run_words,
            layout.code,
            {} if self.kind == "docker" else device.environment(layout),
            f"{self.inside}/bundles/{self.digest}",
            ["--variant", self.variant.name],
        )
        if self.measured and self.settings.measured:
            files.write_json(self.settings.measured, self.measured)

    def _switch(self, layout: Layout) -> None:
        self._send_configuration(layout)
        spec = self._service(layout)
        self.switched = not (self.lazy and self._runs_already(spec))
        if not self.switched:
            self._say("  it already runs there")
            return
        path = f"{layout.state}/incoming/service.json"
        self.remote.run(
            f"mkdir -p {shlex.quote(layout.state)}/incoming && cat > {shlex.quote(path)}",
            stdin=json.dumps(spec, indent=1) + "\n",
        )
        self.installed.switch(self.digest, path, self._say)

    def _send_configuration(self, layout: Layout) -> None:
        """The file is not written where it is already: zones may have been drawn there since."""
        found = self.configuration
        if found is None:
            return
        folder = f"{layout.state}/{configuration.FOLDER}"
        place, part = shlex.quote(f"{folder}/{found.name}"), shlex.quote(f"{folder}/{found.name}.part")
        self.remote.run(
            f"mkdir -p {shlex.quote(folder)} && cat > {part} && {{ [ -e {place} ] || mv {part} {place}; }}; "
            f"rm -f {part}; [ -s {place} ]",
            stdin=found.text,
        )

    def _clean(self) -> None:
        """The runner is healthy, so what neither it nor the way back needs may go. No reason to call this a failure."""
        self.removed: dict[str, Any] | None = None
        try:
            self.removed = self.installed.prune(0) or None
        except JetmaskError as error:
            self.warnings.append(f"older releases could not be removed: {error.what}")
        if self.removed is not None:
            said, *problems = leftovers.show(self.removed).splitlines()
            self._say("  " + said)
            self.warnings += problems
        for text in self.warnings:
            self._say("  warning: " + text)

    def _service(self, layout: Layout) -> dict[str, Any]:
        user_unit = self.kind == "systemd-user"
        extra = options.words(self.settings.serve_args, "serve-args")
        found = self.configuration
        if self.variant.name != self.contents.default_variant and (found is None or self.settings.variant):
            extra = ["--variant", self.variant.name, *extra]
        sources = self.sources
        if found is not None:
            sources = []
            extra = ["--config", f"{self.inside}/{configuration.FOLDER}/{found.name}", *extra]
        serve = device.serve_words(f"{self.inside}/current", sources, self.settings.host, self.settings.port, extra)
        return device.service(
            layout,
            "systemd" if user_unit else self.kind,
            self.run_words,
            serve,
            self.settings.port,
            self.facts,
            self.settings.python,
            self.settings.docker,
            user_unit,
            self.settings.host,
            self.sources,
        )

    def _runs_already(self, spec: dict[str, Any]) -> bool:
        found = self.installed.status()
        return (
            found["current"] == self.digest
            and found["trial"] is None
            and found["service"] == spec
            and not Installed.half_back(found)
            and bool(self.installed.health(spec))
        )


def _size_kb(folder: str) -> int:
    return sum(os.path.getsize(os.path.join(folder, name)) for name in manifest.listing(folder)) >> 10
