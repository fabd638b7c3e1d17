"""What older releases left on this device: bundles, engines, packages, venvs, images and broken-off uploads.

A release that is kept is the current one, the previous one (for the way back), and those that a switch on trial or a
rollout would go back to. Whatever of jetmask's none of them uses is removed; what a living process uses stays, and so
does everything that jetmask did not make.
"""

import contextlib
import os
import re
import shutil
import subprocess
from typing import Any, Dict, Iterator, List, Optional, Set

from jetson import files
from jetson.bundle import manifest
from jetson.errors import JetmaskError
from jetson.install.store import DIGEST, Store

# The id of a device package: its version, and the first digits of the SHA-256 of its SHA256SUMS.
_ID = r"[0-9][0-9A-Za-z.+]*-[0-9a-f]{10}"
_PACKAGE = re.compile("^" + _ID + "$")
_VENV = re.compile("^venv-" + _ID + "$")
_IMAGE = re.compile("^(localhost/)?jetmask:" + _ID + "$")  # podman puts localhost/ before it
_HALF = re.compile("^[.](venv-)?" + _ID + "[.]old$")
_KINDS = (
    ("removed", "bundle"),
    ("engines", "engine"),
    ("packages", "package"),
    ("venvs", "venv"),
    ("images", "image"),
    ("uploads", "upload"),
)


def remove(where: Store, keep: int, root: Optional[str] = None, docker: str = "docker") -> Dict[str, Any]:
    """Remove all but the newest `keep` bundles and the releases that are kept. Call under the lock.

    `root`: the folder of packages and venvs; without it they, images and uploads are left alone. Returns lists of what
    is gone by name ("removed": bundles by digest, "engines", "packages", "venvs", "images", "uploads"), "freed_bytes",
    by which the free room has grown, and "problems", what could not be removed and why.
    """
    found = dict({key: [] for key, _ in _KINDS}, problems=[])  # type: Dict[str, Any]
    before = _free(where, root)
    services = _services(where)
    models = {digest: _models(where.bundle(digest)) for digest in where.digests()}
    found["removed"] = where.prune(keep, [digest for digest in models if _in_use(where.bundle(digest))])
    _engines(where, models, found)
    # Where the runner was set up by other hands nobody knows what it uses.
    if root is not None and where.service() is not None:
        words = [word for spec in services for word in list(spec.get("run", ())) + list(spec.get("start", ()))]
        _folders(root, {str(spec.get("code")) for spec in services}, words, found)
        _uploads(where, root, found)
        _images(docker, words, any(spec.get("kind") == "docker" for spec in services), found)
    found["freed_bytes"] = max(0, _free(where, root) - before)
    return found


def show(found: Dict[str, Any]) -> str:
    """What `remove` returned, in one line, and one more for each problem."""
    parts = [f"{len(found[key])} {name}{'' if len(found[key]) == 1 else 's'}" for key, name in _KINDS if found[key]]
    text = f"removed of older releases: {', '.join(parts)}; {found['freed_bytes'] / 2**20:.1f} MiB freed"
    lines = [text if parts else "nothing of older releases to remove"]
    return "\n".join(lines + ["not removed: " + problem for problem in found["problems"]])


def _services(where: Store) -> List[Dict[str, Any]]:
    """How the runners of all releases that are kept are started."""
    found = [where.service(), where.previous_service(), (where.read("trial.json") or {}).get("service_was")]
    incoming = where.path("incoming")
    for name in os.listdir(incoming) if os.path.isdir(incoming) else ():
        if name.startswith("before-") and name.endswith(".json"):  # where a rollout over a fleet would go back to
            found.append(where.read(os.path.join("incoming", name)))
    return [spec for spec in found if spec]


def _models(bundle: str) -> Set[str]:
    """The SHA-256 of each of a bundle's models; none where it is damaged."""
    try:
        return {variant.sha256 for variant in manifest.load(bundle).variants}
    except JetmaskError:
        return set()


def _engines(where: Store, models: Dict[str, Set[str]], found: Dict[str, Any]) -> None:
    """Remove the engines of models that were in removed bundles only."""
    gone = {sha for digest in found["removed"] for sha in models[digest]}
    gone -= {sha for digest in where.digests() for sha in models[digest]}
    folder = where.path("engines")
    for name in sorted(os.listdir(folder)) if gone and os.path.isdir(folder) else ():
        sidecar, plan = os.path.join(folder, name), os.path.join(folder, name[: -len("json")] + "plan")
        with contextlib.suppress(JetmaskError, KeyError, TypeError, OSError):
            if name.endswith(".json") and files.read_json(sidecar)["recipe"]["onnx_sha256"] in gone:
                for path in (plan, sidecar):  # the plan first: none may be there without its sidecar
                    if os.path.exists(path):
                        os.unlink(path)
                found["engines"].append(name[: -len(".json")])


def _folders(root: str, codes: Set[str], words: List[str], found: Dict[str, Any]) -> None:
    """Remove the packages and venvs that no release uses."""
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else ():
        path = os.path.join(root, name)
        if os.path.islink(path):
            continue
        if _HALF.match(name):  # a removal that was cut off
            _remove(path, None, found)
        elif _PACKAGE.match(name) and name not in codes and _is_package(path):
            _remove(path, "packages", found)
        elif (
            _VENV.match(name)
            and os.path.isfile(os.path.join(path, "pyvenv.cfg"))
            and not any(word.startswith(path + os.sep) for word in words)
        ):
            _remove(path, "venvs", found)


def _is_package(path: str) -> bool:
    """Whether a folder is a device package: its name holds the hash of its list of files."""
    try:
        return files.sha256(os.path.join(path, "SHA256SUMS")).startswith(path[-10:])
    except OSError:
        return False


def _uploads(where: Store, root: str, found: Dict[str, Any]) -> None:
    """Remove what broken-off uploads of packages, wheels, bundles and images left."""
    for folder, ours in (
        (os.path.join(root, "incoming"), lambda name: _PACKAGE.match(name) or name == "wheels"),
        (where.path("incoming"), lambda name: DIGEST.match(name) or name == "image.tar"),
    ):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if ours(name) or name == ".rsync-partial":
                _remove(os.path.join(folder, name), "uploads", found)


def _remove(path: str, kind: Optional[str], found: Dict[str, Any]) -> None:
    folder, name = os.path.split(path)
    if _in_use(path):
        return
    try:
        if not os.path.isdir(path):
            os.unlink(path)
        elif kind in ("packages", "venvs"):  # renamed first: a kill in the middle leaves no half one under its name
            away = os.path.join(folder, f".{name}.old")
            os.rename(path, away)
            shutil.rmtree(away)
        else:
            shutil.rmtree(path)
        if kind is not None:
            found[kind].append(name)
    except OSError as error:
        found["problems"].append(f"{path}: {error.strerror}")


def _in_use(path: str) -> bool:
    """Whether a living process stands in this folder or names something in it: another deployment, a second runner."""
    inside = tuple(place + os.sep for place in {path, os.path.realpath(path)})
    return any((word + os.sep).startswith(inside) for word in _words_of_processes())


def _words_of_processes() -> Iterator[str]:
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError):  # it has ended, or its folder is hidden from us
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                yield from os.fsdecode(file.read()).split("\0")
            yield os.readlink(f"/proc/{pid}/cwd")


def _images(docker: str, words: List[str], needed: bool, found: Dict[str, Any]) -> None:
    """Remove the images that no release uses; `needed`: whether a release runs in a container at all."""
    if shutil.which(docker) is None:
        return
    try:
        names = _run([docker, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "jetmask"]).split()
    except JetmaskError as error:
        if needed:  # else this user may have nothing to do with docker
            found["problems"].append(str(error))
        return
    for name in names:
        if _IMAGE.match(name) and name not in words and name.replace("localhost/", "") not in words:
            try:
                _run([docker, "rmi", name])  # without force: docker refuses where a container uses it
                found["images"].append(name)
            except JetmaskError as error:
                found["problems"].append(str(error))


def _run(command: List[str]) -> str:
    text = " ".join(command)
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=120
        )
    except subprocess.TimeoutExpired as error:
        raise JetmaskError(f"`{text}` did not end within 120 s") from error
    except OSError as error:
        raise JetmaskError(f"`{text}` cannot be run: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise JetmaskError(f"`{text}` failed: {said[-300:]}")
    return done.stdout.decode("utf-8", "replace")


def _free(where: Store, root: Optional[str]) -> int:
    """Free bytes where bundles and packages are, counted once where that is one disk."""
    places = {}
    for folder in (where.folder, root):
        if folder is not None and os.path.isdir(folder):
            places[os.stat(folder).st_dev] = shutil.disk_usage(folder).free
    return sum(places.values())
