"""A device for tests: a real sshd on loopback, with a key of its own and a home of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
import time


def missing():
    """What a real sshd needs and this machine lacks, or ""."""
    absent = [name for name in ("ssh", "ssh-keygen", "rsync") if shutil.which(name) is None]
    if not os.path.exists("/usr/sbin/sshd"):
        absent.append("sshd")
    return ", ".join(absent)


def free_port():
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Sshd:
    """sshd with its own keys; `config` is the ssh configuration file that knows it as `device`.

    `prefix`: words to start it with (another network namespace); `address`: where it listens.
    """

    def __init__(self, folder, address="127.0.0.1", prefix=(), path=None):
        self.folder, self.address, self.prefix = str(folder), address, list(prefix)
        self.home = os.path.join(self.folder, "home")
        os.makedirs(self.home)
        self.port = free_port()
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._path(name)], check=True)
        # A shell there starts in its own home and finds what a test puts into bin/ first.
        os.makedirs(self._path("bin"))
        search = path or os.environ["PATH"]
        lines = [
            f"ListenAddress {address}",
            f"Port {self.port}",
            f"HostKey {self._path('host')}",
            f"AuthorizedKeysFile {self._path('user.pub')}",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            "PasswordAuthentication no",
            "LogLevel ERROR",
            "MaxStartups 100",
            f"SetEnv HOME={self.home} PATH={self._path('bin')}:{search}",
        ]
        with open(self._path("sshd_config"), "w") as file:
            file.write("\n".join(lines) + "\n")
        with open(self._path("host.pub")) as file:
            key = " ".join(file.read().split()[:2])
        with open(self._path("known_hosts"), "w") as file:
            file.write(f"[{address}]:{self.port} {key}\n")
        self.config = self._path("ssh_config")
        with open(self.config, "w") as file:
            file.write(
                "Host device\n  HostName {}\n  Port {}\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n"
                "  UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n".format(
                    address, self.port, os.environ.get("USER") or "root", self._path("user"), self._path("known_hosts")
                )
            )
        os.makedirs("/run/sshd", exist_ok=True)
        self.process = None
        self.start()

    def _path(self, name):
        return os.path.join(self.folder, name)

    def start(self):
        """Start it and wait until it answers."""
        with open(self._path("sshd.log"), "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, "/usr/sbin/sshd", "-D", "-e", "-f", self._path("sshd_config")],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        end = time.monotonic() + 15
        while subprocess.run(
            ["ssh", "-F", self.config, "device", "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ).returncode:
            if time.monotonic() > end or self.process.poll() is not None:
                with open(self._path("sshd.log")) as file:
                    raise RuntimeError("sshd does not answer: " + file.read()[-500:])
            time.sleep(0.1)

    def run(self, line):
        """Run a shell line there; its standard output."""
        return subprocess.run(
            ["ssh", "-F", self.config, "device", line],
            stdin=subprocess.DEVNULL,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def close(self):
        """End the listener and every session it holds."""
        if self.process is None:
            return
        children = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], stdout=subprocess.PIPE, text=True
        ).stdout.split()
        self.process.terminate()
        self.process.wait()
        for pid in children:
            with contextlib.suppress(OSError):
                os.kill(int(pid), 15)
        self.process = None
