"""A small Debian as a stand-in for a Jetson's system, with a Python 3.6 as its python3."""

import os
import shutil
import subprocess

NEEDED = ("debootstrap",)


def missing(*programs):
    """Which of `programs` this machine lacks, root included, as text; "" when nothing."""
    absent = [name for name in NEEDED + programs if shutil.which(name) is None]
    if os.getuid():
        absent.append("root")
    if not os.environ.get("JETMASK_PYTHON36"):
        absent.append("JETMASK_PYTHON36")
    return ", ".join(absent)


def make_arm64(folder, include=()):
    """Unpack a minimal Debian for arm64 into `folder`, by emulation (minutes); JETMASK_DEBIAN_ARM64 may name one."""
    packages = ("python3", "ca-certificates", *include)
    if os.environ.get("JETMASK_DEBIAN_ARM64"):
        subprocess.run(["cp", "-a", os.environ["JETMASK_DEBIAN_ARM64"], folder], check=True)
    else:
        subprocess.run(
            ["debootstrap", "--arch=arm64", "--variant=minbase", "--include=" + ",".join(packages), "bookworm", folder],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def make(folder, include=()):
    """Unpack a minimal Debian into `folder` and give it JETMASK_PYTHON36's Python 3.6; returns that one's modules.

    JETMASK_DEBIAN may name a folder with such a Debian, to be copied instead of unpacked from the network.
    """
    packages = ("python3", "ca-certificates", *include)
    if os.environ.get("JETMASK_DEBIAN"):
        subprocess.run(["cp", "-a", os.environ["JETMASK_DEBIAN"], folder], check=True)
    else:
        subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=" + ",".join(packages), "bookworm", folder],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    python = os.environ["JETMASK_PYTHON36"]
    code = "import sys, sysconfig; print(sys.base_prefix); print(sysconfig.get_paths()['purelib'])"
    prefix, modules = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    there = os.path.join(folder, "opt/python36")
    shutil.copytree(prefix, there, symlinks=True, ignore=shutil.ignore_patterns("test", "*.a", "__pycache__"))
    for name in ("python3", "python3.6"):
        os.symlink("/opt/python36/bin/python3.6", os.path.join(folder, "usr/local/bin", name))
    # It remembers where it was built, and links extensions against that place.
    os.makedirs(folder + os.path.dirname(prefix), exist_ok=True)
    os.symlink("/opt/python36", folder + prefix)
    with open(os.path.join(folder, "etc/ld.so.conf.d/python36.conf"), "w") as file:
        file.write("/opt/python36/lib\n")
    subprocess.run(["chroot", folder, "ldconfig"], check=True)
    return modules


def add_modules(folder, modules):
    """Let the Python 3.6 in there see the modules of the test environment."""
    shutil.copytree(
        modules,
        os.path.join(folder, "opt/modules"),
        symlinks=True,
        ignore=shutil.ignore_patterns("__pycache__", "tests"),
    )
    with open(os.path.join(folder, "opt/python36/lib/python3.6/site-packages/modules.pth"), "w") as file:
        file.write("/opt/modules\n")
