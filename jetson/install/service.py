"""Start, stop and watch the runner on this device: as a container, a systemd unit, or a plain process.

A service is a JSON object, kept as service.json beside the bundles:
    kind      "docker", "systemd" or "process"
    start     the command: `docker run -d ...`, or the runner's own for a process
    program   docker only: the program's name, for instance podman
    name      the container's or the unit's name
    user      systemd only: whether it is a unit of this user, not of the system
    unit      systemd only: the unit file's text
    cwd, env  process only
    url       what answers 200 when all is well
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
import urllib.parse
from typing import Any, Callable, Dict, List, Optional, Tuple

from jetson import files
from jetson.errors import DeviceMismatch, JetmaskError

Service = Dict[str, Any]
_STOP_S = 15.0
_TOOL_S = 120.0  # docker and systemctl; a daemon that hangs must not hold a switch, and with it the lock, for ever
STARTING_S = 2 * 3600.0  # engines that are built take minutes each; one that has not ended by then never will
_LOG_BYTES = 4 << 20  # of service.log; twice that is kept


def _run(command: List[str], quiet: bool = False) -> str:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=_TOOL_S
        )
    except subprocess.TimeoutExpired as error:
        raise JetmaskError(
            f"`{' '.join(command)[:200]}` hangs: it was ended after {_TOOL_S:.0f} s",
            None,
            None,
            "sudo systemctl restart docker, or restart the device; then the same again",
        ) from error
    except OSError as error:
        raise DeviceMismatch(
            f"cannot run {command[0]}: {error.strerror}",
            None,
            None,
            "`python3 -m jetson doctor` shows what this device lacks",
        ) from error
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode and not quiet:
        raise JetmaskError(f"`{' '.join(command)[:200]}` failed with exit code {done.returncode}: {text[-500:]}")
    return text


def _systemctl(service: Service, *words: str) -> List[str]:
    if service.get("user"):
        return ["systemctl", "--user"] + list(words)
    return (["sudo", "-n"] if os.getuid() else []) + ["systemctl"] + list(words)


def _docker(service: Service) -> str:
    return service.get("program", "docker")


def _unit_path(service: Service) -> str:
    folder = os.path.expanduser("~/.config/systemd/user") if service.get("user") else "/etc/systemd/system"
    return os.path.join(folder, service["name"])


def with_environment(service: Service, name: str, value: str) -> Service:
    """The same service with a variable in its runner's environment. `value`: without blanks and quotes."""
    made = dict(service, env=dict(service.get("env", {}), **{name: value}))
    if service["kind"] == "docker":
        words = list(service["start"])
        at = words.index("run") + 1  # docker's own words come before, those of the runner after the image
        made["start"] = words[:at] + ["-e", f"{name}={value}"] + words[at:]
    elif service["kind"] == "systemd":
        made["unit"] = service["unit"].replace("[Service]\n", f"[Service]\nEnvironment={name}={value}\n", 1)
    return made


def start(service: Service, state: str) -> None:
    """Start the runner; it must not be running. JetmaskError with the tool's words where that fails."""
    kind = service["kind"]
    if kind == "docker":
        _run(service["start"])
    elif kind == "systemd":
        path = _unit_path(service)
        if service.get("user") or os.getuid() == 0:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            files.write_text(path, service["unit"])
        else:
            aside = os.path.join(state, service["name"])
            files.write_text(aside, service["unit"])
            _run(["sudo", "-n", "install", "-m", "0644", aside, path])
        _run(_systemctl(service, "daemon-reload"))
        _run(_systemctl(service, "enable", service["name"]))
        # One that has reached its start limit would be refused even when asked for.
        _run(_systemctl(service, "reset-failed", service["name"]), quiet=True)
        # Not waited for: it is ready once its engines are built, and watch() sees an end before that.
        _run(_systemctl(service, "--no-block", "restart", service["name"]))
    else:
        environment = dict(os.environ, **service.get("env", {}))
        pid_file = os.path.join(os.path.abspath(state), "service.pid")

        def note() -> None:
            # By the runner itself, before it is one: a switch that is killed here leaves none that nobody knows.
            files.write_json(pid_file, {"pid": os.getpid(), "born": _born(os.getpid())})

        log_file = os.path.join(state, "service.log")
        # Nobody else turns this log over; a runner says little, so once at each start is enough.
        with contextlib.suppress(OSError):
            if os.path.getsize(log_file) > _LOG_BYTES:
                os.replace(log_file, log_file + ".1")
        with open(log_file, "ab") as log:
            try:
                subprocess.Popen(
                    service["start"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=service.get("cwd") or state,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=note,
                )
            except subprocess.SubprocessError as error:
                raise DeviceMismatch(
                    "cannot note the runner's process id",
                    pid_file,
                    "a folder that can be written",
                    "free some disk space, or check who owns the folder",
                ) from error
            except OSError as error:
                raise DeviceMismatch(
                    f"cannot start the runner: {error.strerror}: {error.filename}",
                    None,
                    None,
                    "deploy again: it puts back what is missing there",
                ) from error


def stop(service: Service, state: str) -> None:
    """Stop the runner and wait until it is gone; nothing happens where it does not run."""
    kind = service["kind"]
    if kind == "docker":
        _run([_docker(service), "rm", "-f", service["name"]], quiet=True)
    elif kind == "systemd":
        _run(_systemctl(service, "stop", service["name"]), quiet=True)
    else:
        pid = _pid(state)
        if pid is None:
            return
        for number, wait_s in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(pid, number)
            except ProcessLookupError:
                break
            end = time.monotonic() + wait_s
            while time.monotonic() < end and _pid(state) is not None:
                _reap(pid)
                time.sleep(0.05)
            if _pid(state) is None:
                break
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(state, "service.pid"))


def running(service: Service, state: str) -> bool:
    """Whether the runner's container, unit or process is there."""
    kind = service["kind"]
    if kind == "docker":
        return _run([_docker(service), "inspect", "-f", "{{.State.Running}}", service["name"]], quiet=True) == "true"
    if kind == "systemd":
        shown = _run(_systemctl(service, "show", "-p", "ActiveState", "-p", "Job", service["name"]), quiet=True)
        return systemd_running(shown)
    return _pid(state) is not None


def systemd_running(shown: str) -> bool:
    """Whether `systemctl show -p ActiveState -p Job` speaks of a runner that serves or is being started.

    A start has a job until it is ready; between a runner's end and its next start the unit is activating without one.

    >>> systemd_running("ActiveState=activating\\nJob=173"), systemd_running("ActiveState=activating")
    (True, False)
    """
    values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return values.get("ActiveState") in ("active", "reloading") or values.get("Job", "0") not in ("", "0")


def logs(service: Service, state: str, lines: int = 100) -> List[str]:
    """The command that prints the runner's last log lines."""
    if service["kind"] == "docker":
        return [_docker(service), "logs", "--tail", str(lines), service["name"]]
    if service["kind"] == "systemd":
        words = ["journalctl", "--no-pager", "-n", str(lines), "--user-unit" if service.get("user") else "-u"]
        return words + [service["name"]]
    return ["tail", "-n", str(lines), os.path.join(state, "service.log")]


def said(service: Service, state: str, lines: int = 12) -> List[str]:
    """The runner's last log lines; [] where they cannot be had."""
    try:
        done = subprocess.run(
            logs(service, state, lines),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=15,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    text = done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
    return [line[:300] for line in text.splitlines() if line.strip()][-lines:]


def healthy(service: Service, timeout_s: float = 4.0) -> Tuple[bool, str]:
    """Whether the runner answers its health address with 200, and what it said otherwise."""
    where = urllib.parse.urlsplit(service["url"])
    connection = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port or 80, timeout=timeout_s)
    try:
        connection.request("GET", where.path or "/")
        answer = connection.getresponse()
        text = answer.read(500).decode("utf-8", "replace").strip()
        return answer.status == 200, f"{answer.status} {text}"
    except (OSError, http.client.HTTPException) as error:
        return False, str(error) or type(error).__name__
    finally:
        connection.close()


def starting(words: str) -> bool:
    """Whether an answer of the health address, as `healthy` gives it, is that of a runner that still starts.

    >>> starting('503 {"ok": false, "status": "starting"}'), starting('503 {"ok": false, "status": "stuck"}')
    (True, False)
    """
    try:
        answer = json.loads(words.partition(" ")[2])
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.get("status") == "starting"


def watch(
    service: Service,
    state: str,
    start_s: float,
    watch_s: float,
    say: Optional[Callable[[str], None]] = None,
    on_starting: Optional[Callable[[], None]] = None,
) -> Optional[str]:
    """Wait up to `start_s` seconds for health, then see it hold for `watch_s` seconds; why it did not, or None.

    A runner that answers that it is still starting builds its first engine, for minutes on a Nano, and is no failure:
    then `start_s` counts from its last such answer, and `on_starting` is called at each, for STARTING_S at most.
    A single missed answer is forgiven, since a small board has busy seconds; three in a row are not.
    """
    began = time.monotonic()
    end = began + start_s
    building = False
    while True:
        good, words = healthy(service)
        if good:
            break
        if not running(service, state):
            return "the runner ended while it started: " + words
        now = time.monotonic()
        if starting(words):
            end = min(now + start_s, began + start_s + STARTING_S)
            if not building and say:
                say("the runner builds or opens its engine; this may take minutes and is waited for")
            building = True
            if on_starting:
                on_starting()
        if now >= end:
            return f"the runner was not healthy within {now - began:.0f} s: {words}"
        time.sleep(0.25)
    if say:
        say(f"healthy; watching for {watch_s:.0f} s")
    end = time.monotonic() + watch_s
    missed = 0
    while time.monotonic() < end:
        time.sleep(min(0.5, max(0.0, end - time.monotonic())))
        good, words = healthy(service)
        missed = 0 if good else missed + 1
        if not running(service, state):
            return "the runner ended after it had been healthy"
        if missed >= 3:
            return "the runner did not stay healthy: " + words
    return None


def _born(pid: int) -> Optional[str]:
    # Field 22 of /proc/PID/stat, the start time, tells a process from a later one with the same number.
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rsplit(b")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else fields[19].decode()


def _pid(state: str) -> Optional[int]:
    path = os.path.join(state, "service.pid")
    try:
        record = files.read_json(path)
        pid, born = int(record["pid"]), record["born"]
    except (JetmaskError, KeyError, TypeError, ValueError):
        return None
    return pid if born is not None and _born(pid) == born else None


def _reap(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)
