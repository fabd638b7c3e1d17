"""`jetmask deploy`: bring a bundle to a Jetson over ssh, try it there, switch to it, and go back if it fails.

Up to the switch nothing that runs is touched: files arrive under names of their own and get their final name when they
are whole. The switch itself runs on the device in a process of its own, so that a link that drops cannot cut it in two.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
import textwrap
import time
from typing import Any

from jetson import doctor, files, install, manifest, signing, store
from jetson.errors import DeviceMismatch, JetmaskError, UsageError
from pipeline import device, preflight
from pipeline.device import Layout
from pipeline.device_bench import measure, parse
from pipeline.remote import Remote

_EXAMPLES = """examples:
  jetmask deploy jetson/models user@nano --source csi://0
  jetmask deploy jetson/models user@nano --no-container --source /dev/video0
  jetmask deploy jetson/models user@nano --dry-run
  jetmask deploy --status user@nano          (also --list, --logs, --rollback, --prune-old 2)"""


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask deploy`."""
    add = parser.add_argument
    parser.epilog = _EXAMPLES
    add("words", nargs="+", metavar="[BUNDLE] USER@HOST", help="the bundle (folder or tar file), and the device")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--status", action="store_true", help="what is installed there, and what runs")
    what.add_argument("--list", action="store_true", help="the bundles that are installed there")
    what.add_argument("--rollback", action="store_true", help="go back to the previous bundle")
    what.add_argument("--logs", action="store_true", help="the runner's last log lines")
    what.add_argument("--prune-old", type=int, metavar="N", help="keep the newest N bundles, current and previous")
    add("--lines", type=int, default=100, metavar="N", help="with --logs: how many (default: %(default)s)")
    add("--dry-run", action="store_true", help="print each command for the device instead of running it")
    add("--source", action="append", metavar="URI", help="what the runner watches (default: /dev/video0)")
    add("--host", default="127.0.0.1", help="address that the live page listens on there (default: %(default)s)")
    add("--port", type=int, default=8080, help="its port (default: %(default)s)")
    add("--serve-args", default="", metavar="'...'", help="further arguments for `serve`: --serve-args='--blur-faces'")
    add("--variant", metavar="NAME", help="which of the bundle's variants to run (default: the bundle's)")
    add("--no-container", action="store_true", help="systemd and a venv instead of a container")
    add("--service", choices=("docker", "systemd", "systemd-user", "process"),
        help="how the runner is kept running (default: docker; with --no-container systemd; a process ends at reboot)")
    add("--image-tar", metavar="FILE", help="a saved image (docker save) for a device without internet")
    add("--build-arg", action="append", default=[], metavar="K=V", help="for building the image on the device")
    add("--docker", default="docker", metavar="PROGRAM", help="docker there, or podman (default: %(default)s)")
    add("--no-gpu", action="store_true", help="run on the CPU although the device could do more")
    add("--python", default="python3", metavar="PROGRAM", help="Python there (default: %(default)s)")
    add("--use-python", action="store_true", help="with --no-container: use --python as it is, without a venv")
    add("--wheels", metavar="DIR", help="with --no-container: wheels for a device without internet")
    add("--root", default=device.ROOT, help="where programs are put there (default: %(default)s)")
    add("--state", default=device.STATE, help="where bundles and engines are kept there (default: %(default)s)")
    add("--digest", metavar="HEX", help="the root digest that the bundle must have")
    add("--key", metavar="FILE", help="demand a signature by this public key, here and there")
    add("--no-engines", action="store_true", help="build no TensorRT engine now (the runner builds at its first start)")
    add("--no-bench", action="store_true", help="do not measure")
    add("--measured", metavar="OUT.json", help="write the device's measurements here")
    add("--start", type=float, default=180.0, metavar="S",
        help="seconds it may take to be healthy (default %(default)s)")
    add("--watch", type=float, default=20.0, metavar="S", help="seconds it must stay healthy (default %(default)s)")
    add("--ssh", default="", metavar="'...'", help="words for ssh, for instance '-p 2222' or '-F FILE'")
    add("--retries", type=int, default=4, help="how often a broken connection is tried again (default %(default)s)")
    add("--json", action="store_true", help="print the result as JSON")


def command(args: argparse.Namespace) -> int:
    """Deploy, or ask and steer what is deployed."""
    asks = args.status or args.list or args.rollback or args.logs or args.prune_old is not None
    if len(args.words) != (1 if asks else 2):
        raise UsageError("expected " + ("USER@HOST alone" if asks else "BUNDLE USER@HOST"), " ".join(args.words), None,
                         "see `jetmask deploy --help`")
    with Remote(args.words[-1], shlex.split(args.ssh), args.retries, args.dry_run) as remote:
        if asks:
            return _ask(remote, args)
        result = Deployment(remote, args).run(args.words[0])
    if not args.dry_run:
        print(json.dumps(result, indent=1) if args.json else _summary(args, result))
    return 0


class Deployment:
    """One run of `jetmask deploy BUNDLE TARGET`; each method is one stage."""

    def __init__(self, remote: Remote, args: argparse.Namespace) -> None:
        self.remote, self.args = remote, args
        self.kind = args.service or ("systemd" if args.no_container else "docker")
        if args.no_container == (self.kind == "docker"):
            raise UsageError(f"--service {self.kind} goes with{'out' if args.no_container else ''} --no-container only")
        self.sources = args.source or ["/dev/video0"]
        self.facts: dict[str, str] = {}
        self.times: dict[str, float] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="jetmask-deploy-")

    def run(self, bundle: str) -> dict[str, Any]:
        """All stages in order; returns {digest, times_s, measured, url}."""
        with self._scratch, device.unpack(bundle) as folder:
            package = os.path.join(self._scratch.name, "package")
            os.mkdir(package)
            layout = Layout(self.args.root, self.args.state, device.write_package(package))
            stages = [
                ("check the bundle here", lambda: self._check_here(folder)),
                ("ask the device", lambda: self._preflight(layout, folder)),
                ("send the device package", lambda: self._send_package(layout, package)),
                ("prepare " + ("the image" if self.kind == "docker" else "Python"), lambda: self._prepare(layout)),
                ("send and install the bundle", lambda: self._send_bundle(layout, folder)),
                ("build engines", lambda: self._build(layout)),
                ("self-test", lambda: self._self_test(layout)),
                ("measure", lambda: self._measure(layout)),
                ("switch and watch", lambda: self._switch(layout)),
            ]
            for number, (title, stage) in enumerate(stages, 1):
                self._say(f"[{number}/{len(stages)}] {title}")
                started = time.monotonic()
                stage()
                self.times[title] = round(time.monotonic() - started, 2)
        return {"target": self.remote.target, "digest": self.digest, "image": layout.image, "code": layout.code_id,
                "measured": self.measured, "times_s": self.times, "url": f"http://{self.args.host}:{self.args.port}/"}

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _check_here(self, folder: str) -> None:
        keys = signing.read_keys(self.args.key) if self.args.key else None
        self.digest = install.check(folder, self.args.digest, keys)
        self.contents = manifest.load(folder)
        self.variant = self.contents.variant(self.args.variant)
        self.measured: dict[str, Any] | None = None
        self._say(f"  {self.contents.name}, {len(self.contents.variants)} variants, root digest {self.digest}")

    def _preflight(self, layout: Layout, folder: str) -> None:
        script = preflight.script(layout, self.args.python, self.args.docker, self.sources)
        answer = self.remote.run("sh -s", stdin=script)
        if self.remote.dry_run:
            self.facts = {"uid": "1000", "gid": "1000", "user": "user", "python": "3.6", "home": "~"}
            self.gpu = not self.args.no_gpu
        else:
            self.facts = preflight.parse(answer)
            self.gpu = preflight.gpu_wanted(self.facts, self.args)
            found = preflight.judge(self.facts, self.args, self.kind, layout, _size_kb(folder), self.sources,
                                    self.builds_engines())
            bad = [finding for finding in found if finding.level == "bad"]
            self._say(textwrap.indent(doctor.show([finding for finding in found if finding not in bad]), "  "))
            if bad:
                raise DeviceMismatch("the device is not ready:\n" + textwrap.indent(doctor.show(bad), "  "),
                                     self.remote.target)
        self.jetpack, *self.bases = device.jetpack(self.facts)

    def builds_engines(self) -> bool:
        """Whether this deployment builds TensorRT engines on the device."""
        return self.gpu and not self.args.no_engines and "tensorrt" in self.variant.runtimes

    def _send_package(self, layout: Layout, package: str) -> None:
        code, arriving = shlex.quote(layout.code), f"{layout.root}/incoming/{layout.code_id}"
        check = f"cd {code} 2>/dev/null && sha256sum --quiet -c SHA256SUMS >/dev/null 2>&1"
        if self.remote.dry_run or self.remote.code(check):
            self.remote.run(["mkdir", "-p", arriving])
            self.remote.copy(package + "/", arriving + "/")
            self.remote.run(f"cd {shlex.quote(arriving)} && sha256sum --quiet -c SHA256SUMS && rm -rf {code} && "
                            f"cd / && mv {shlex.quote(arriving)} {code}")

    def _prepare(self, layout: Layout) -> None:
        if self.kind == "docker":
            self._prepare_image(layout)
        else:
            self._prepare_python(layout)

    def _prepare_image(self, layout: Layout) -> None:
        docker = self.args.docker
        flags = device.container_flags(layout, self.facts, self.sources, self.gpu)
        self.run_words = [docker, "run", "--rm", *flags, layout.image]
        self.inside = device.STATE
        if not self.remote.dry_run and self.remote.code([docker, "image", "inspect", layout.image]) == 0:
            return
        if self.args.image_tar:
            arriving = f"{layout.state}/incoming/image.tar"
            self.remote.run(["mkdir", "-p", f"{layout.state}/incoming"])
            self.remote.copy(self.args.image_tar, arriving)
            loaded = self.remote.run([docker, "load", "-i", arriving])
            name = loaded.strip().rpartition("Loaded image")[2].split(":", 1)[-1].strip()
            self.remote.run([docker, "tag", name or "IMAGE", layout.image])
            self.remote.run(["rm", "-f", arriving])
            return
        base, build_base = self.bases
        arguments = {"BASE": base, "BUILD_BASE": build_base, "JETPACK": self.jetpack, "GPU": str(int(self.gpu)),
                     "VERSION": layout.code_id}
        for pair in self.args.build_arg:
            key, equals, value = pair.partition("=")
            if not equals:
                raise UsageError(f"--build-arg {pair}: not KEY=VALUE")
            arguments[key] = value
        words = [docker, "build", "-f", "Dockerfile.l4t", "-t", layout.image]
        for key, value in arguments.items():
            words += ["--build-arg", f"{key}={value}"]
        self._say("  building the image on the device: this takes minutes, once")
        self.remote.run(f"cd {shlex.quote(layout.code)} && {shlex.join([*words, '.'])}", follow=self._follow)

    def _prepare_python(self, layout: Layout) -> None:
        self.inside = layout.state
        if self.args.use_python:
            self.run_words = [self.args.python, "-m", "jetson"]
            return
        fitting = device.pins(self.facts["python"])
        pinned = f"{layout.code}/jetson/requirements-jetpack{fitting}.txt"
        cuda = f"{layout.code}/jetson/requirements-pycuda-jetpack{fitting}.txt"
        venv = f"{layout.root}/venv-{layout.code_id}"
        python = f"{venv}/bin/python"
        self.run_words = [python, "-m", "jetson"]
        source = ""
        if self.args.wheels:
            arriving = f"{layout.root}/incoming/wheels"
            self.remote.run(["mkdir", "-p", arriving])
            self.remote.copy(self.args.wheels.rstrip("/") + "/", arriving + "/")
            source = f"--no-index --find-links {shlex.quote(arriving)} "
        # With the system's packages in sight: JetPack's TensorRT module and OpenCV with GStreamer live there.
        lines = [
            "set -e", f"test -e {shlex.quote(venv)}/.ready && exit 0", f"rm -rf {shlex.quote(venv)}",
            f"{shlex.quote(self.args.python)} -m venv --system-site-packages {shlex.quote(venv)}",
            f"{shlex.quote(python)} -m pip install -q {source}-U 'pip==21.3.1' 'setuptools==59.6.0' 'wheel==0.37.1'",
            f"{shlex.quote(python)} -m pip install --no-deps --require-hashes {source}-r {shlex.quote(pinned)}",
        ]
        if self.gpu:
            # TensorRT's engines run through pycuda, which has no wheel for a Jetson: it is compiled there, once.
            self._say("  compiling pycuda on the device: this takes minutes, once")
            lines.append(
                f"{shlex.quote(python)} -c 'import pycuda.driver' 2>/dev/null || "
                "PATH=\"/usr/local/cuda/bin:$PATH\" "  # it finds CUDA beside nvcc
                f"{shlex.quote(python)} -m pip install --no-deps --no-build-isolation --require-hashes {source}"
                f"-r {shlex.quote(cuda)}")
        lines.append(f"touch {shlex.quote(venv)}/.ready")
        self.remote.run("\n".join(lines), follow=self._follow)

    def _send_bundle(self, layout: Layout, folder: str) -> None:
        arriving = f"{layout.state}/incoming/{self.digest}"
        installed = layout.bundle(self.digest)
        verify = device.in_code(
            layout, [self.args.python, "-m", "jetson", "verify", installed, "--digest", self.digest])
        if not self.remote.dry_run and self.remote.code(verify) == 0:
            self._say("  it is there already")
            return
        self.remote.run(["mkdir", "-p", arriving])
        # What the bundle that runs now has in common with the new one is not sent.
        self.remote.copy(os.path.join(folder, ""), arriving + "/", [f"--copy-dest={layout.state}/current/"])
        words = [self.args.python, "-m", "jetson", "install", arriving, "--stage", "--digest", self.digest]
        if self.args.key:
            key = f"{layout.state}/incoming/key.pub"
            self.remote.copy(self.args.key, key)
            words += ["--key", key]
        self.remote.run(device.in_code(layout, words))
        self.remote.run(["rm", "-rf", arriving])

    def _verb(self, layout: Layout, words: list[str]) -> str:
        if self.kind == "docker":
            return shlex.join([*self.run_words, *words])
        return device.in_code(layout, [*self.run_words, *words])

    def _build(self, layout: Layout) -> None:
        if not self.builds_engines():
            self._say("  none: " + ("this device has no GPU that is used" if not self.gpu else "not wanted"
                                    if self.args.no_engines else f"{self.variant.name} does not run on TensorRT"))
            return
        self.remote.run(["mkdir", "-m", "700", "-p", f"{layout.state}/engines"])
        bundle = f"{self.inside}/bundles/{self.digest}"
        self.remote.run(self._verb(layout, ["build", bundle, "--variant", self.variant.name]), follow=self._follow)

    def _self_test(self, layout: Layout) -> None:
        words = ["verify", f"{self.inside}/bundles/{self.digest}", "--self-test", "--variant", self.variant.name,
                 "--json"]
        text = self.remote.run(self._verb(layout, words), check=False)
        if self.remote.dry_run:
            return
        answer = parse(text, "the self-test")
        if not answer.get("ok"):
            raise DeviceMismatch("the bundle does not pass its self-test on the device:\n    " + "\n    ".join(
                answer.get("problems", [])), self.remote.target, None,
                "nothing was switched; `python3 -m jetson doctor` on the device shows what it lacks")
        test = answer["self_test"]
        self._say("  {variant} on {runtime}: {faces} faces in {images} images as expected".format(**test))

    def _measure(self, layout: Layout) -> None:
        if self.args.no_bench:
            return
        self.measured = measure(self.remote, self.run_words, layout.code,
                                {} if self.kind == "docker" else device.environment(layout),
                                f"{self.inside}/bundles/{self.digest}", ["--variant", self.variant.name])
        if self.measured and self.args.measured:
            files.write_json(self.args.measured, self.measured)

    def _switch(self, layout: Layout) -> None:
        user_unit = self.kind == "systemd-user"
        extra = shlex.split(self.args.serve_args)
        if self.args.variant:
            extra = ["--variant", self.args.variant, *extra]
        serve = device.serve_words(f"{self.inside}/current", self.sources, self.args.host, self.args.port, extra)
        spec = device.service(layout, "systemd" if user_unit else self.kind, self.run_words, serve, self.args.port,
                              self.facts, self.args.python, self.args.docker, user_unit)
        path = f"{layout.state}/incoming/service.json"
        self.remote.run(f"mkdir -p {shlex.quote(layout.state)}/incoming && cat > {shlex.quote(path)}",
                        stdin=json.dumps(spec, indent=1) + "\n")
        token = f"{time.time():.3f}-{os.getpid()}"
        words = [self.args.python, "-m", "jetson", "install", "--activate", self.digest, "--service", path, "--token",
                 token, "--start", str(self.args.start), "--watch", str(self.args.watch), "--detach"]
        self.remote.run(device.in_code(layout, words))
        if self.remote.dry_run:
            return
        result = self._await(layout, token)
        if not result["ok"]:
            said = "".join("\n    | " + line for line in result.get("said", ()))
            raise JetmaskError(f"the device is not on the new bundle: {result['message']}{said}", self.remote.target,
                               None, "the new runner's last log lines above say why; what ran before runs again"
                               if said else f"jetmask deploy --status {self.remote.target}")

    def _await(self, layout: Layout, token: str) -> dict[str, Any]:
        end = time.monotonic() + self.args.start + self.args.watch + 90
        ask = device.in_code(layout, [self.args.python, "-m", "jetson", "install", "--status", "--json"])
        shown, pause_s = None, 0.2
        while time.monotonic() < end:
            status = parse(self.remote.run(ask), "the device's status")
            result = status["result"] or {}
            if result.get("token") == token:
                return result
            phase = "on trial, watching" if status["trial"] else "waiting"
            if phase != shown:
                self._say(f"  {phase}")
                shown = phase
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 2.0)
        raise JetmaskError("the switch on the device did not end in time", self.remote.target, None,
                           "run the same deploy again: an unfinished switch is undone first")

    def _follow(self, line: str) -> None:
        self._say("  | " + line[:200])


def _ask(remote: Remote, args: argparse.Namespace) -> int:
    layout = Layout(args.root, args.state, "")
    newest = f"$(ls -1dt {shlex.quote(args.root)}/[0-9]*/jetson 2>/dev/null | head -n 1)"
    words = ["--state", args.state, "--json"]
    if args.status or args.list:
        words = ["--status", *words]
    elif args.rollback:
        words = ["--rollback", *words, "--start", str(args.start), "--watch", str(args.watch)]
    elif args.prune_old is not None:
        words = ["--prune-old", str(args.prune_old), *words]
    else:
        words = ["--logs", str(args.lines), "--state", args.state]
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in device.environment(layout).items())
    line = f"code={newest}; test -n \"$code\" || exit 9; cd \"$code/..\" && {variables} exec " + shlex.join(
        [args.python, "-m", "jetson", "install", *words])
    if not remote.dry_run and remote.code(f"test -n \"{newest}\""):
        raise UsageError(f"nothing is deployed on {remote.target}", args.root, None, "jetmask deploy BUNDLE USER@HOST")
    if args.logs:
        remote.run(line, follow=print)
        return 0
    text = remote.run(line)
    if remote.dry_run:
        return 0
    answer = parse(text, "the device's answer")
    if args.json:
        print(json.dumps(answer, indent=1))
    elif args.status or args.list:
        print(store.show(answer))
        spec = answer["service"]
        if args.status and spec is not None:
            program = f"import urllib.request as u; print(u.urlopen('{spec['url']}', timeout=4).read().decode())"
            print("health: " + (remote.run([args.python, "-c", program], check=False).strip() or "no answer"))
    elif args.rollback:
        print(f"{remote.target} is back on {answer['current'][:16]}")
    else:
        print(f"removed {len(answer['removed'])} bundles")
    return 0


def _size_kb(folder: str) -> int:
    return sum(os.path.getsize(os.path.join(folder, name)) for name in manifest.listing(folder)) >> 10


def _summary(args: argparse.Namespace, result: dict[str, Any]) -> str:
    lines = [f"{result['target']} runs bundle {result['digest'][:16]}"]
    lines += [f"  {title:<28} {seconds:6.1f} s" for title, seconds in result["times_s"].items()]
    lines.append(f"live page there: {result['url']}")
    if args.host.startswith("127."):
        lines.append(f"from here: ssh -L {args.port}:127.0.0.1:{args.port} {result['target']}, then open "
                     f"http://127.0.0.1:{args.port}/")
    return "\n".join(lines)

