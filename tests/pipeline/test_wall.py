"""The wall between the two packages: what `jetson` may import, and that a real Python 3.6 takes all of it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "jetson").rglob("*.py"))
EVERYWHERE = {"numpy", "cv2", "prometheus_client"}
# module -> the files that may import it, and there inside a function only: touching a device or a missing package
# must not happen by importing a module.
LAZY = {
    "tensorrt": {"jetson/engine/tensorrt_module.py"},
    "pycuda": {"jetson/engine/cuda.py"},
    "onnxruntime": {"jetson/engine/onnx.py"},
    "ai_edge_litert": {"jetson/engine/litert.py"},
    "paho": {"jetson/mqtt/publisher.py"},
    "yaml": {"jetson/config/document.py", "jetson/config/edit.py"},
    "Jetson": {"jetson/alerts/pin.py"},
}
PYTHON36 = os.environ.get("JETMASK_PYTHON36")
needs_python36 = pytest.mark.skipif(not PYTHON36, reason="JETMASK_PYTHON36 is not set (make setup36 makes one)")


def imports(path):
    """(top-level name, line, is it inside a function) of every import in a file."""
    found = []

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name.split(".")[0], child.lineno, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: relative import"
                found.append((child.module.split(".")[0], child.lineno, inside))
            elif (
                isinstance(child, ast.Call)
                and isinstance(child.func, ast.Attribute)
                and child.func.attr == "import_module"
                and child.args
                and isinstance(child.args[0], ast.Constant)
            ):
                found.append((child.args[0].value.split(".")[0], child.lineno, inside))
            walk(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    walk(ast.parse(path.read_text()), False)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_jetson_imports_only_what_a_device_has(path):
    name = str(path.relative_to(ROOT))
    for module, line, inside in imports(path):
        where = f"{name}:{line}"
        if module in LAZY:
            assert name in LAZY[module], f"{where}: {module} belongs to {sorted(LAZY[module])}"
            assert inside, f"{where}: {module} must be imported inside a function"
        else:
            assert module in EVERYWHERE | {"jetson"} or module in sys.stdlib_module_names, f"{where}: {module}"


def test_importing_jetson_loads_nothing_heavy():
    names = [str(path.relative_to(ROOT).with_suffix("")).replace(os.sep, ".") for path in MODULES]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(sorted(set({sorted(LAZY)!r} + ['pipeline', 'tensorflow']) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_an_import_is_seen_wherever_it_stands(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(
        "import importlib\ndef f():\n    import pipeline.cli\nif 1:\n    from tensorrt import a\n"
        "importlib.import_module('onnxruntime')\n"
    )
    assert imports(path) == [
        ("importlib", 1, False),
        ("pipeline", 3, True),
        ("tensorrt", 5, False),
        ("onnxruntime", 6, False),
    ]


@needs_python36
@pytest.mark.py36
def test_python36_compiles_and_imports_every_module():
    code = """
import importlib, sys
assert sys.version_info[:2] == (3, 6), sys.version
failed = []
for path in sys.argv[1:]:
    try:
        with open(path, encoding="utf-8") as file:
            compile(file.read(), path, "exec")
        name = path[:-3].replace("/", ".")
        if not name.endswith("__main__"):
            importlib.import_module(name[:-9] if name.endswith(".__init__") else name)
    except Exception as error:
        failed.append("{}: {}: {}".format(path, type(error).__name__, error))
print("\\n".join(failed))
"""
    paths = [str(path.relative_to(ROOT)) for path in MODULES]
    done = subprocess.run([PYTHON36, "-B", "-c", code, *paths], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("prog, module", [("jetmask", "pipeline.cli"), ("python3 -m jetson", "jetson")])
def test_the_verbs_are_those_that_the_design_names(prog, module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    expected = {
        "jetmask": "demo data train prune export calibrate build bundle evaluate detect predict bench report sweep "
        "choose run config deploy first-light doctor",
        "python3 -m jetson": "build serve config bench verify install first-light collect doctor",
    }[prog]
    assert sorted(listed) == sorted(expected.split())
