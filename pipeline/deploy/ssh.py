"""Another machine, reached by the system's ssh and rsync: their configuration, keys and known hosts, no password."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence

from jetson.capture.address import scrub
from jetson.errors import BadInput, JetmaskError, UsageError

# ssh and rsync end with these when the connection failed, not the command.
_BROKEN = {"ssh": (255,), "rsync": (10, 12, 30, 35, 255)}
_STALLED = 30  # rsync's word for no progress
_KILLED = 137  # a shell's word for a command that SIGKILL ended
_TIMED_OUT = 124  # coreutils' `timeout` says so
# How long a command may take there: a question; hashing, copying or removing files on a slow card; an image, modules or
# engines, which a Nano may build for hours. The last is no wait for a broken link: that ends a command in 15 s.
QUICK_S, MINUTES_S, LONG_S = 60.0, 600.0, 4 * 3600.0
# Beyond its limit the command has been ended there. If ssh says nothing by then either, the device is frozen, or ssh.
GRACE_S = 30.0
STALL_S = 60  # rsync: seconds without any progress


class Unreachable(JetmaskError):
    """The device could not be reached, or was lost on the way."""

    exit_code = 3


class Remote:
    """`target` (user@host, or a name of ~/.ssh/config) to run commands on and copy to.

    `ssh_options`: words that are given to ssh (`-p 2222`, `-F file`). A connection that breaks is tried again
    `retries` times, so every command given here must be harmless to repeat. One that takes longer than its limit is
    ended, there and here, and not repeated. With `dry_run` nothing is run: each
    command is printed, and answers "". With `own_session` the terminal's Ctrl-C does not reach ssh: whoever steers
    several devices lets each end what it is at. `close` ends the shared connection.
    """

    def __init__(
        self,
        target: str,
        ssh_options: Sequence[str] = (),
        retries: int = 4,
        dry_run: bool = False,
        say: Callable[[str], None] | None = None,
        own_session: bool = False,
    ) -> None:
        if target.startswith("-") or not target.strip():
            raise UsageError(f"{target!r} is not a host", None, "user@host, or a name of ~/.ssh/config")
        for program in ("ssh", "rsync"):
            if shutil.which(program) is None and not dry_run:
                raise UsageError(f"{program} is not installed here", None, None, f"sudo apt-get install {program}")
        if retries < 0:
            raise UsageError(f"--retries {retries}", None, "0 or more")
        self.target, self.retries, self.dry_run, self._own_session = target, retries, dry_run, own_session
        self._reached = False
        self._say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        # One connection for all commands; its socket's path must stay short (108 bytes).
        self._scratch = tempfile.mkdtemp(prefix="jm-")
        self._socket = f"{self._scratch}/s"
        # ssh takes the first value it meets, so the user's words come first.
        self._ssh = [
            "ssh",
            *ssh_options,
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            "-o",
            "ServerAliveInterval=5",
            "-o",
            "ServerAliveCountMax=3",
            "-o",
            "ControlMaster=auto",
            "-o",
            "ControlPersist=60",
            "-o",
            f"ControlPath={self._socket}",
        ]

    def run(
        self,
        command: str | Sequence[str],
        stdin: str | None = None,
        check: bool = True,
        follow: Callable[[str], None] | None = None,
        limit_s: float | None = None,
    ) -> str:
        """Run a shell command there and return its standard output.

        `follow` gets each line of output as it comes (standard error included). `limit_s`: seconds that it may take,
        QUICK_S when None. JetmaskError with what it printed where it fails and `check` holds, and where it did not end
        in time; Unreachable where the connection fails, or nothing is heard from it at all.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        if self.dry_run:
            print(shlex.join(["ssh", self.target, line]) + (f"  <<'END'\n{stdin}END" if stdin else ""), flush=True)
            return ""
        code, out, err = self._asked(line, stdin, follow, limit_s)
        where = _shown(line)
        if code == _KILLED and check:
            raise JetmaskError(
                f"a command on {self.target} was killed there: {_tail(err or out)}",
                where,
                None,
                "the kernel does that when memory runs out (`dmesg` there says so): stop the desktop "
                "or add swap, then run the same deploy again; it resumes",
            )
        if code and check:
            raise JetmaskError(
                f"a command on {self.target} failed (exit code {code}): {_tail(err or out)}",
                where,
                None,
                "fix it on the device and run the same deploy again; it resumes",
            )
        return out

    def code(self, command: str | Sequence[str], limit_s: float | None = None) -> int:
        """Run a command there for its exit code; errors of time and connection as for `run`."""
        line = command if isinstance(command, str) else shlex.join(command)
        if self.dry_run:
            print(shlex.join(["ssh", self.target, line]), flush=True)
            return 0
        return self._asked(line, None, None, limit_s)[0]

    def _asked(
        self, line: str, stdin: str | None, follow: Callable[[str], None] | None, limit_s: float | None
    ) -> tuple[int, str, str]:
        limit = QUICK_S if limit_s is None else limit_s
        where = _shown(line)
        # A command that hangs is ended there, not here alone: what is left behind would be in the way of the next try.
        inner = shlex.join(["timeout", "-k", "10", f"{limit:g}", "sh", "-c", line])
        # ssh answers 255, as for a broken link, when the program that it started dies of a signal. A shell that
        # outlives the command makes 128 + signal of it; plain sh, whatever the user's own shell is there.
        words = [*self._ssh, self.target, "exec sh -c " + shlex.quote(f"{inner}; exit $?")]

        def attempt() -> tuple[int, str, str]:
            began = time.monotonic()
            try:
                code, out, err = self._once(words, stdin, follow, limit + GRACE_S)
            except subprocess.TimeoutExpired:
                self._disconnect()
                raise Unreachable(
                    f"{self.target} has said nothing about a command that should have ended after {_span(limit)}",
                    where,
                    None,
                    "the device is frozen, or the connection to it: see whether `ssh "
                    f"{self.target} true` answers, start the device anew if not, then run the same "
                    "command again; it resumes",
                ) from None
            if code in (_TIMED_OUT, _KILLED) and time.monotonic() - began >= limit:
                said = _tail(err or out)
                raise JetmaskError(
                    f"a command on {self.target} hangs: it was ended there after {_span(limit)}"
                    + (f"; it had said: {said}" if said else ""),
                    where,
                    None,
                    "see there what holds it up (a docker that hangs: sudo systemctl restart docker; a full or dying "
                    "card: dmesg), then run the same command again; it resumes",
                )
            return code, out, err

        return self._retried("ssh", attempt)

    def copy(self, source: str, target: str, extra: Sequence[str] = ()) -> None:
        """Make the folder or file `target` there equal to `source`; what arrived before a break is kept and used."""
        words = [
            "rsync",
            "-rlt",
            "--checksum",
            "--delete",
            "--partial-dir=.rsync-partial",
            f"--timeout={STALL_S}",
            "-e",
            shlex.join(self._ssh),
            *extra,
            source,
            f"{self._rsync_target}:{target}",
        ]
        if self.dry_run:
            print(shlex.join([word if word != shlex.join(self._ssh) else "ssh" for word in words]), flush=True)
            return

        def attempt() -> tuple[int, str, str]:
            code, out, err = self._once(words, None, None, None)
            if code == _STALLED:  # the next try needs a connection of its own
                self._disconnect()
            return code, out, err

        code, out, err = self._retried("rsync", attempt)
        if code == 127 or "rsync: command not found" in err or "rsync: not found" in err:
            raise JetmaskError(
                f"rsync is not installed on {self.target}", None, None, "sudo apt-get install rsync there"
            )
        if code:
            raise JetmaskError(
                f"copying to {self.target} failed (rsync's exit code {code}): {_tail(err or out)}",
                target,
                None,
                "fix it and run the same deploy again; it resumes",
            )

    @property
    def _rsync_target(self) -> str:
        # The colons of an IPv6 address would be rsync's own.
        user, at, host = self.target.rpartition("@")
        return f"{user}{at}[{host}]" if host.count(":") > 1 and not host.startswith("[") else self.target

    def fetch(self, path: str) -> str:
        """The text of a file there; BadInput where it cannot be read."""
        text = self.run(["cat", path], check=False)
        if not text and not self.dry_run:
            raise BadInput("cannot read a file on the device", f"{self.target}:{path}")
        return text

    def close(self) -> None:
        """End the shared connection."""
        if not self.dry_run:
            self._disconnect()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _disconnect(self) -> None:
        """End the shared connection, whatever state it is in; the next command makes a new one."""
        try:
            subprocess.run(
                [*self._ssh, "-O", "exit", self.target],
                stdin=subprocess.DEVNULL,
                check=False,
                timeout=5,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:  # the process that holds it hangs
            for pid in _holders(self._socket):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._socket)

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _retried(self, program: str, attempt: Callable[[], tuple[int, str, str]]) -> tuple[int, str, str]:
        for number in range(self.retries + 1):
            code, out, err = attempt()
            if code not in _BROKEN[program]:
                self._reached = True
                return code, out, err
            reason = _tail(err) or "no answer"
            hopeless = any(
                words in err
                for words in (
                    "Permission denied",
                    "Host key verification failed",
                    "REMOTE HOST IDENTIFICATION",
                    "Bad configuration option",
                )
            )
            # A name that was known a moment ago is not misspelt: the network is away, or the device starts anew.
            hopeless = hopeless or ("Could not resolve hostname" in err and not self._reached)
            if hopeless or number == self.retries:
                break
            wait_s = min(2.0**number, 15.0)
            self._say(f"  connection to {self.target} lost ({reason.splitlines()[-1]}); again in {wait_s:.0f} s")
            time.sleep(wait_s)
        raise Unreachable(
            f"cannot reach {self.target}: {reason}",
            None,
            f"`ssh {self.target} true` to work without a question",
            _advice(err, self._reached),
        )

    def _once(
        self, words: Sequence[str], stdin: str | None, follow: Callable[[str], None] | None, limit_s: float | None
    ) -> tuple[int, str, str]:
        """Run a program here; subprocess.TimeoutExpired once it was killed for taking longer than `limit_s`."""
        if follow is None:
            done = subprocess.run(
                words,
                input=stdin or "",
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                start_new_session=self._own_session,
                timeout=limit_s,
            )
            return done.returncode, done.stdout, done.stderr
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=self._own_session,
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_s or threading.TIMEOUT_MAX, end)
        timer.daemon = True
        timer.start()
        lines = []
        try:
            for text in process.stdout or ():
                lines.append(text)
                follow(text.rstrip("\n"))
            code = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
        if late.is_set():
            raise subprocess.TimeoutExpired(list(words), limit_s or 0)
        return code, "".join(lines), ""


def _advice(said: str, reached: bool) -> str:
    """What to do about a connection that fails with what ssh said."""
    if reached:
        return "run the same command again: the device is unchanged, and what has arrived is not sent again"
    if "Could not resolve hostname" in said:
        return "check the name; the device's address does as well (`hostname -I` there shows it)"
    if "Connection refused" in said:
        return "start ssh there (sudo systemctl enable --now ssh); if it listens on another port: --ssh '-p PORT'"
    if any(words in said for words in ("timed out", "No route to host", "Network is unreachable")):
        return "see whether the device is on and in this network, then run the same command again"
    return "set up a key (ssh-copy-id) and accept the host key once"


def _holders(socket: str) -> list[int]:
    """The processes that hold a shared connection: ssh calls itself `ssh: SOCKET [mux]` then."""
    found = []
    for pid in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{int(pid)}/cmdline", "rb") as file:
            if f"ssh: {socket} [mux]".encode() in file.read():
                found.append(int(pid))
    return found


def _shown(line: str) -> str:
    """A command for an error: without passwords, and of a long one the beginning and the end, which says most."""
    text = scrub(line)
    return text if len(text) <= 300 else f"{text[:80]} ... {text[-215:]}"


def _span(seconds: float) -> str:
    return (
        f"{seconds:g} s"
        if seconds < 120
        else f"{seconds / 60:g} minutes"
        if seconds < 7200
        else (f"{seconds / 3600:g} hours")
    )


def _tail(text: str, lines: int = 6) -> str:
    return "\n    ".join(text.strip().splitlines()[-lines:])
