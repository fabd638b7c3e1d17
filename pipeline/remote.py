"""Another machine, reached by the system's ssh and rsync: their configuration, keys and known hosts, no password."""

import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.source import redact

# ssh and rsync end with these when the connection failed, not the command.
_BROKEN = {"ssh": (255,), "rsync": (10, 12, 30, 35, 255)}
_KILLED = 137  # a shell's word for a command that SIGKILL ended


class Unreachable(JetmaskError):
    """The device could not be reached, or was lost on the way."""

    exit_code = 3


class Remote:
    """`target` (user@host, or a name of ~/.ssh/config) to run commands on and copy to.

    `ssh_options`: words that are given to ssh (`-p 2222`, `-F file`). A connection that breaks is tried again
    `retries` times, so every command given here must be harmless to repeat. With `dry_run` nothing is run: each
    command is printed, and answers "". With `own_session` the terminal's Ctrl-C does not reach ssh: whoever steers
    several devices lets each end what it is at. `close` ends the shared connection.
    """

    def __init__(self, target: str, ssh_options: Sequence[str] = (), retries: int = 4, dry_run: bool = False,
                 say: Callable[[str], None] | None = None, own_session: bool = False) -> None:
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
        # ssh takes the first value it meets, so the user's words come first.
        self._ssh = [
            "ssh", *ssh_options, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5",
            "-o", "ServerAliveCountMax=3", "-o", "ControlMaster=auto", "-o", "ControlPersist=60",
            "-o", f"ControlPath={self._scratch}/s"]

    def run(self, command: str | Sequence[str], stdin: str | None = None, check: bool = True,
            follow: Callable[[str], None] | None = None) -> str:
        """Run a shell command there and return its standard output.

        `follow` gets each line of output as it comes (standard error included). JetmaskError with what it printed
        where it fails and `check` holds; Unreachable where the connection does.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        if self.dry_run:
            print(shlex.join(["ssh", self.target, line]) + (f"  <<'END'\n{stdin}END" if stdin else ""), flush=True)
            return ""
        code, out, err = self._retried("ssh", lambda: self._once(self._words(line), stdin, follow))
        where = redact(line)[:300]
        if code == _KILLED and check:
            raise JetmaskError(f"a command on {self.target} was killed there: {_tail(err or out)}", where, None,
                               "the kernel does that when memory runs out (`dmesg` there says so): stop the desktop "
                               "or add swap, then run the same deploy again; it goes on where it was")
        if code and check:
            raise JetmaskError(f"a command on {self.target} failed (exit code {code}): {_tail(err or out)}", where,
                               None, "mend it there and run the same deploy again; it goes on where it was")
        return out

    def code(self, command: str | Sequence[str]) -> int:
        """Run a command there for its exit code."""
        line = command if isinstance(command, str) else shlex.join(command)
        if self.dry_run:
            print(shlex.join(["ssh", self.target, line]), flush=True)
            return 0
        return self._retried("ssh", lambda: self._once(self._words(line), None, None))[0]

    def _words(self, line: str) -> list[str]:
        # ssh answers 255, as for a broken link, when the program that it started dies of a signal. A shell that
        # outlives the command makes 128 + signal of it; plain sh, whatever the user's own shell is there.
        return [*self._ssh, self.target, "exec sh -c " + shlex.quote(f"({line}\n); exit $?")]

    def copy(self, source: str, target: str, extra: Sequence[str] = ()) -> None:
        """Make the folder or file `target` there equal to `source`; what arrived before a break is kept and used."""
        words = ["rsync", "-rlt", "--checksum", "--delete", "--partial-dir=.rsync-partial", "--timeout=30",
                 "-e", shlex.join(self._ssh), *extra, source, f"{self._rsync_target}:{target}"]
        if self.dry_run:
            print(shlex.join([word if word != shlex.join(self._ssh) else "ssh" for word in words]), flush=True)
            return
        code, out, err = self._retried("rsync", lambda: self._once(words, None, None))
        if code == 127 or "rsync: command not found" in err or "rsync: not found" in err:
            raise JetmaskError(f"rsync is not installed on {self.target}", None, None,
                               "sudo apt-get install rsync there")
        if code:
            raise JetmaskError(f"copying to {self.target} failed (rsync's exit code {code}): {_tail(err or out)}",
                               target, None, "mend it and run the same deploy again; it goes on where it was")

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
            subprocess.run([*self._ssh, "-O", "exit", self.target], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self._scratch, ignore_errors=True)

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
            hopeless = any(words in err for words in (
                "Permission denied", "Host key verification failed", "REMOTE HOST IDENTIFICATION",
                "Bad configuration option"))
            # A name that was known a moment ago is not misspelt: the network is away, or the device starts anew.
            hopeless = hopeless or ("Could not resolve hostname" in err and not self._reached)
            if hopeless or number == self.retries:
                break
            wait_s = min(2.0 ** number, 15.0)
            self._say(f"  connection to {self.target} lost ({reason.splitlines()[-1]}); again in {wait_s:.0f} s")
            time.sleep(wait_s)
        raise Unreachable(
            f"cannot reach {self.target}: {reason}", None, f"`ssh {self.target} true` to work without a question",
            "set up a key (ssh-copy-id) and accept the host key once; after a broken link run the same deploy again: "
            "the device is as it was, and what arrived is not sent twice")

    def _once(self, words: Sequence[str], stdin: str | None,
              follow: Callable[[str], None] | None) -> tuple[int, str, str]:
        if follow is None:
            done = subprocess.run(words, input=stdin or "", capture_output=True, text=True, errors="replace",
                                  check=False, start_new_session=self._own_session)
            return done.returncode, done.stdout, done.stderr
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, errors="replace", start_new_session=self._own_session)
        lines = []
        try:
            for text in process.stdout or ():
                lines.append(text)
                follow(text.rstrip("\n"))
            return process.wait(), "".join(lines), ""
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _tail(text: str, lines: int = 6) -> str:
    return "\n    ".join(text.strip().splitlines()[-lines:])
