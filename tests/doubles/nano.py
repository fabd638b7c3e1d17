"""A stand-in Jetson for deployments: a real sshd in a mount namespace that looks like one (needs root).

L4T's release file, a camera's device node, JetPack 4's memory, a docker with NVIDIA's runtime, the TensorRT double and
the driver stand-in; /opt/jetmask, /var/lib/jetmask and /etc belong to it alone. What it is not: NVIDIA's software.
"""

import json
import os
import shutil
import subprocess
import sys

from sshd import Sshd, free_port, missing

from jetson.install.store import Store

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOUBLES = os.path.join(TESTS, "doubles")
PYTHON = os.environ.get("JETMASK_PYTHON36") or sys.executable
SOURCE = "synthetic://?size=160x120&fps=2"
RELEASE = "# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t210ref, EABI: aarch64\n"
MEMINFO = "MemTotal: 4059316 kB\nMemFree: 2000000 kB\nMemAvailable: 2800000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"


def why_not():
    """What this machine lacks for it, or ""."""
    if os.getuid():
        return "root"
    absent = [name for name in ("unshare", "setpriv", "gcc") if shutil.which(name) is None]
    if not absent and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        absent = ["mount namespaces"]
    return ", ".join([missing(), *absent] if missing() else absent)


class Nano:
    """`deploy(words)` runs `jetmask deploy` against it; `store` looks at its state folder from outside."""

    def __init__(self, folder, site=None, **variables):
        """`site`: a folder with pycuda, so that engines run, too; `variables`: further ones of its programs."""
        self.folder = str(folder)
        self.under = os.path.join(self.folder, "machine")
        os.makedirs(os.path.join(self.under, "etc"))
        library = os.path.join(self.folder, "driver")
        subprocess.run(["sh", os.path.join(DOUBLES, "fakecuda", "build.sh"), library], check=True, capture_output=True)
        self.gpu = {
            "LD_LIBRARY_PATH": library,
            "PYTHONPATH": os.path.join(DOUBLES, "tensorrt_double"),
            "TENSORRT_DOUBLE": "8.2.1",
            "FAKECUDA_NAME": "NVIDIA Tegra X1",
            "FAKECUDA_CC": "5.3",
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        if site:  # the TensorRT double reads ONNX with our own module
            self.gpu["PYTHONPATH"] += f":{site}:{os.path.dirname(TESTS)}"
        self.set(release=RELEASE, meminfo=MEMINFO, cameras="video0\n")
        self.sshd = Sshd(self.folder, prefix=["sh", os.path.join(DOUBLES, "jetson_namespace.sh"), self.under])
        self.state_there = "/var/lib/jetmask"
        self.state = os.path.join(self.under, "upper/var-lib/jetmask")
        self.docker_folder = os.path.join(self.under, "upper/opt/docker")
        variables = " ".join(f"{key}='{value}'" for key, value in self.gpu.items() if key != "PYTHONPATH")
        self.program(
            "python3",
            f'export {variables}\nexport PYTHONPATH="{self.gpu["PYTHONPATH"]}'
            f'${{PYTHONPATH:+:$PYTHONPATH}}"\nexec {PYTHON} "$@"',
        )
        self.program("dpkg-query", "echo 'installed 8.2.1-1+cuda10.2'")
        facts = os.path.join(self.folder, "docker.json")
        with open(facts, "w") as file:
            json.dump({"folder": "/opt/docker", "python": PYTHON, "gpu": self.gpu}, file)
        self.program("docker", f'exec {sys.executable} {DOUBLES}/docker_standin.py {facts} "$@"')
        self.port = free_port()
        for name in ("systemctl", "journalctl"):  # systemd runs there once there is /run/systemd/system
            self.program(name, f'exec {sys.executable} {DOUBLES}/systemctl_standin.py {name} "$@"')
        # A runner that leaves the processor to the deployment.
        self.options = [
            "--ssh",
            f"-F {self.sshd.config}",
            "--source",
            SOURCE,
            "--serve-args=--tradeoff off",
            "--port",
            str(self.port),
            "--watch",
            "0.5",
            "--start",
            "60",
            "--retries",
            "1",
        ]

    def set(self, release=None, meminfo=None, cameras=None):
        """Change the machine; takes effect for memory at once, for the others before the sshd starts."""
        for name, text in (("etc/nv_tegra_release", release), ("meminfo", meminfo), ("cameras", cameras)):
            if text is not None:  # written in place: the namespace holds the file itself
                with open(os.path.join(self.under, name), "w") as file:
                    file.write(text)

    def program(self, name, script):
        """Put a shell script onto the device's PATH, before all else."""
        path = os.path.join(self.folder, "bin", name)
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + script + "\n")
        os.chmod(path, 0o755)

    @property
    def store(self):
        return Store(self.state)

    def deploy(self, *words, options=None):
        """Run the command; the finished process. `words` come last, so that they win."""
        options = self.options if options is None else options
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "deploy", *options, *words],
            capture_output=True,
            text=True,
            timeout=300,
        )

    def running(self):
        """What the live runner says about itself."""
        url = f"http://127.0.0.1:{self.port}/api/state"
        program = f"import urllib.request as u; print(u.urlopen('{url}', timeout=10).read().decode())"
        return json.loads(self.sshd.run(f'python3 -c "{program}"'))

    def containers(self):
        """{name: what docker keeps about it}."""
        folder = os.path.join(self.docker_folder, "containers")
        found = {}
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.endswith(".json"):
                with open(os.path.join(folder, name)) as file:
                    found[name[: -len(".json")]] = json.load(file)
        return found

    def close(self):
        for name in self.containers():
            subprocess.run(["ssh", "-F", self.sshd.config, "device", f"docker rm -f {name}"], capture_output=True)
        subprocess.run(["ssh", "-F", self.sshd.config, "device", "systemctl stop jetmask.service"], capture_output=True)
        self.sshd.close()
