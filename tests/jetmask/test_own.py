"""A foreign `pipeline` or `jetson` on Python's path is named before it can do harm; a wheel and an editable install."""

import os
import subprocess
import sys
import sysconfig

import pytest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), root],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, wheel):
    """A virtual environment that has the wheel, with the packages of this one and without its jetmask."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)],
        check=True,
        capture_output=True,
    )
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def foreign(folder, name, as_file=False):
    """A project that has a package, or a module, of this name."""
    folder.mkdir(exist_ok=True)
    text = f"print('this is another {name}')\n"
    if as_file:
        (folder / f"{name}.py").write_text(text)
    else:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
        (folder / name / "cli.py").write_text("def main():\n    print('another word')\n    return 0\n")
    return folder


def version(env, path=None, cwd=None):
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path:
        variables["PYTHONPATH"] = str(path)
    return subprocess.run(
        [str(env / "bin" / "jetmask"), "--version"], cwd=cwd, env=variables, capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_wheel_in_a_fresh_environment_runs(fresh, tmp_path):
    done = version(fresh, cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (0, "jetmask"), done.stderr
    code = "import jetmask, jetson; print(jetmask.Bundle().problems(), jetson.__file__)"
    done = subprocess.run(
        [str(fresh / "bin" / "python"), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("[] ") and str(fresh) in done.stdout


@pytest.mark.parametrize("name", ["pipeline", "jetson"])
@pytest.mark.parametrize("as_file", [False, True])
def test_a_foreign_package_first_on_the_path_is_named(fresh, tmp_path, name, as_file):
    folder = foreign(tmp_path / "theirs", name, as_file)
    done = version(fresh, folder, tmp_path)
    assert done.returncode == 2 and "another" not in done.stdout
    assert str(folder / name) in done.stderr and "virtual environment" in done.stderr
    code = "import jetmask; jetmask.Detector"
    done = subprocess.run(
        [str(fresh / "bin" / "python"), "-c", code],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and str(folder / name) in done.stderr


def test_a_wheel_that_wrote_over_ours_is_named(fresh, tmp_path):
    (package,) = fresh.glob("lib/python*/site-packages/pipeline")
    init = package / "__init__.py"
    before = init.read_text()
    init.write_text('"""Somebody else\'s pipeline."""\n')
    try:
        done = version(fresh, cwd=tmp_path)
    finally:
        init.write_text(before)
    assert done.returncode == 2 and str(init) in done.stderr


def test_the_folder_one_stands_in_does_not_matter_to_the_command(fresh, tmp_path):
    done = version(fresh, cwd=foreign(tmp_path / "theirs", "pipeline"))
    assert done.returncode == 0 and done.stdout.startswith("jetmask")
