"""A stand-in for systemctl and journalctl, for one unit: it runs what the unit's lines say, without restarts.

usage: systemctl_standin.py systemctl|journalctl WORD...   The unit is read from /etc/systemd/system, its state kept
in /run/systemd. The unit itself is booted under a real systemd in tests/pipeline/deploy/test_systemd.py.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

UNITS, STATE = "/etc/systemd/system", "/run/systemd/standin"


def unit(name):
    """[(key, value)] of the unit file."""
    with open(os.path.join(UNITS, name)) as file:
        return [tuple(line.strip().split("=", 1)) for line in file if "=" in line and not line.startswith("#")]


def alive(name):
    try:
        with open(os.path.join(STATE, name + ".json")) as file:
            pid, born = json.load(file)
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return pid if fields[0] != "Z" and fields[19] == born else None


def stop(name):
    end = time.monotonic() + 15
    while alive(name) and time.monotonic() < end:
        os.killpg(alive(name), signal.SIGTERM)
        time.sleep(0.1)


def split(line):
    """A command line's words; `%` and `$` stand there twice."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]


def restart(name):
    stop(name)
    lines = unit(name)
    values = dict(lines)
    env = dict(os.environ, **dict(value.split("=", 1) for key, value in lines if key == "Environment"))
    with open(os.path.join(STATE, name + ".log"), "ab") as log:
        for words in (value for key, value in lines if key == "ExecStartPre"):
            code = subprocess.call(
                split(words.lstrip("-")), cwd=values["WorkingDirectory"], env=env, stdout=log, stderr=log
            )
            if code and not words.startswith("-"):
                sys.exit(code)
        process = subprocess.Popen(
            split(values["ExecStart"]),
            cwd=values["WorkingDirectory"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    with open(f"/proc/{process.pid}/stat") as file:
        born = file.read().rpartition(")")[2].split()[19]
    with open(os.path.join(STATE, name + ".json"), "w") as file:
        json.dump([process.pid, born], file)


def main():
    program, words = sys.argv[1], [word for word in sys.argv[2:] if word != "--no-block"]
    os.makedirs(STATE, exist_ok=True)
    name = words[-1]
    if program == "journalctl":
        return subprocess.call(["tail", "-n", words[words.index("-n") + 1], os.path.join(STATE, name + ".log")])
    if words[0] in ("daemon-reload", "reset-failed", "enable"):
        return 0
    if words[0] in ("stop", "restart"):
        {"stop": stop, "restart": restart}[words[0]](name)
        return 0
    if words[0] in ("show", "is-active"):
        active = "active" if alive(name) else "inactive"
        print(
            active
            if words[0] == "is-active"
            else f"ActiveState={active}\nSubState={'running' if alive(name) else 'dead'}"
        )
        return 0 if alive(name) or words[0] == "show" else 3
    sys.stderr.write(f"this stand-in knows no {words}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
