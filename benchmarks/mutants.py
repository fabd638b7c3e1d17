"""Mutation testing: break one operator, constant or condition at a time and see whether the mirrored tests notice.

    python -m benchmarks.mutants                    # draws 120 places, runs what results/mutants.csv lacks
    python -m benchmarks.mutants --again            # runs the survivors once more, after tests were written
    python -m benchmarks.mutants --patches FOLDER   # every *.patch of a folder instead of drawn places

The places are drawn with a seed from modules where a wrong number is a wrong answer, equally many of each. A mutant
runs in a copy of the tree, with the tests of its module alone, which stop at their first failure. It is killed when a
test fails or takes ten times as long as without it; `survived` names a place that no test holds; the column
`note`, written by hand and kept, says of some why no test can.
"""

import argparse
import ast
import csv
import hashlib
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from jetson import files

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutants.csv"
TREE = ("jetson", "pipeline", "benchmarks", "tests", "pyproject.toml", "README.md")

# Each module and the tests that mirror it, the quickest first. Test files stand below tests/.
MODULES: dict[str, tuple[str, ...]] = {
    "jetson/tracking/tracker.py": ("jetson/tracking/test_tracker.py",),
    "jetson/tracking/zones.py": ("jetson/tracking/test_zones.py", "jetson/tracking/test_zones_properties.py"),
    "jetson/vision/boxes.py": ("jetson/vision/test_boxes.py", "jetson/vision/test_boxes_properties.py"),
    "jetson/vision/letterbox.py": ("jetson/vision/test_letterbox.py",),
    "jetson/evaluation/average_precision.py": (
        "jetson/evaluation/test_average_precision.py",
        "jetson/evaluation/test_average_precision_properties.py",
    ),
    "jetson/engine/calibration.py": ("jetson/engine/test_calibration.py",),
    "jetson/engine/cache.py": ("jetson/engine/test_cache.py",),
    "jetson/bundle/signing.py": ("jetson/bundle/test_signing.py",),
    "jetson/monitor/drift.py": ("jetson/monitor/test_drift.py",),
    "jetson/mqtt/spool.py": ("jetson/mqtt/test_spool.py",),
    "jetson/web/http.py": ("jetson/web/test_http.py",),
    "jetson/web/access.py": ("jetson/web/test_access.py",),
    "pipeline/latency/roofline.py": ("pipeline/latency/test_roofline.py",),
    "pipeline/choose/choice.py": ("pipeline/choose/test_choose.py",),
    "pipeline/choose/pareto.py": ("pipeline/choose/test_pareto.py",),
    "pipeline/quantization/calibrate.py": ("pipeline/quantization/test_calibrate.py",),
    "pipeline/quantization/quantize.py": ("pipeline/quantization/test_quantize.py",),
    "pipeline/pruning/pruner.py": ("pipeline/pruning/test_plan.py",),
    "pipeline/training/dataset.py": ("pipeline/training/test_dataset.py",),
    "pipeline/training/augment.py": ("pipeline/training/test_augment.py", "pipeline/training/test_dataset.py"),
    "pipeline/training/optimizers.py": ("pipeline/training/test_optimizers.py",),
}
# Tests of whole running services: seconds each, and what they would notice the others must.
LEFT_OUT = (
    "jetson/monitor/test_drift.py::test_an_hour_as_before_is_quiet_and_a_worn_camera_fires",
    "jetson/monitor/test_drift.py::test_a_reload_does_not_forget",
    "jetson/monitor/test_drift.py::test_page_metric_and_file_of_a_running_service",
    "jetson/tracking/test_zones.py::test_counts_events_and_metrics_of_a_running_service",
    "jetson/tracking/test_zones.py::test_a_running_service_reads_the_file_again",
    "jetson/tracking/test_zones_properties.py::test_inside_is_what_the_outline_winds_around",
)
# What these functions do is seen by no caller that computes: options, words and progress.
SKIPPED = {"options", "command", "main", "describe", "__repr__"}

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip


class Mutant(NamedTuple):
    """One change: `before` at characters start to end of the module's text becomes `after`."""

    module: str
    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str

    def key(self, source: str) -> tuple[str, str, str, str, str]:
        """What a change is known by from run to run: its line's text, and where in it, not the line's number."""
        begin = source.rfind("\n", 0, self.start) + 1
        line = source[begin : source.find("\n", self.start)]
        return self.module, line.strip()[:200], str(self.start - begin), self.before, self.after


class _Places(ast.NodeVisitor):
    """Collects the mutants of one module."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.source, self.found = module, source, []  # type: str, str, list[Mutant]
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def _at(self, line: int, column: int) -> int:
        text = self.source[self.lines[line - 1] : self.lines[line]]
        return self.lines[line - 1] + len(text.encode()[:column].decode())

    def _span(self, node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def _add(self, kind: str, start: int, end: int, after: str) -> None:
        line = self.source.count("\n", 0, start) + 1
        self.found.append(Mutant(self.module, line, kind, start, end, self.source[start:end], after))

    def _between(self, left: ast.expr, right: ast.expr, kind: str, before: str, after: str) -> None:
        """The operator's own text between two operands; a comment there hides none, for formatting keeps them apart."""
        start, end = self._span(left)[1], self._span(right)[0]
        found = re.search(re.escape(before).replace(r"\ ", r"\s+"), self.source[start:end])
        if found:
            self._add(kind, start + found.start(), start + found.end(), after)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name not in SKIPPED:
            for part in [*node.args.defaults, *[d for d in node.args.kw_defaults if d], *node.body]:
                self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """The words of an error are no arithmetic."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Nor are the words of a message."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """What a type checker is told."""

    def visit_Compare(self, node: ast.Compare) -> None:
        words = {"<=": ast.LtE, "<": ast.Lt, ">=": ast.GtE, ">": ast.Gt, "==": ast.Eq, "!=": ast.NotEq,
                 "not in": ast.NotIn, "in": ast.In, "is not": ast.IsNot, "is": ast.Is}  # fmt: skip
        spelling = {kind: word for word, kind in words.items()}
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators):
            self._between(left, right, "comparison", spelling[type(operator)], COMPARISONS[type(operator)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        text = isinstance(node.left, (ast.JoinedStr, ast.List)) or isinstance(node.right, (ast.JoinedStr, ast.List))
        text = text or any(
            isinstance(s, ast.Constant) and isinstance(s.value, (str, bytes)) for s in (node.left, node.right)
        )
        if type(node.op) in OPERATORS and not text:
            self._between(node.left, node.right, "operator", *OPERATORS[type(node.op)])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in OPERATORS and not isinstance(node.value, (ast.List, ast.ListComp, ast.JoinedStr)):
            before, after = OPERATORS[type(node.op)]
            self._between(node.target, node.value, "operator", before + "=", after + "=")
        self.visit(node.value)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self._between(left, right, "condition", *words)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        start, end = self._span(node)
        if isinstance(node.op, (ast.Not, ast.USub)):
            self._add(
                "condition" if isinstance(node.op, ast.Not) else "operator", start, self._span(node.operand)[0], " "
            )
        self.generic_visit(node)

    def _condition(self, node: ast.If | ast.IfExp | ast.While) -> None:
        start, end = self._span(node.test)
        self._add("condition", start, end, f"(not ({self.source[start:end]}))")
        self.generic_visit(node)

    visit_If = visit_IfExp = visit_While = _condition

    def visit_Constant(self, node: ast.Constant) -> None:
        value, (start, end) = node.value, self._span(node)
        if isinstance(value, bool):
            self._add("constant", start, end, str(not value))
        elif isinstance(value, int):
            self._add("constant", start, end, str(value + max(1, value // 2)))
        elif isinstance(value, float):
            self._add("constant", start, end, repr(value * 1.5 if value else 1.0))

    def visit_Call(self, node: ast.Call) -> None:
        other = {"min": "max", "max": "min", "ceil": "floor", "floor": "ceil",
                 "maximum": "minimum", "minimum": "maximum",
                 "any": "all", "all": "any", "argmin": "argmax", "argmax": "argmin"}  # fmt: skip
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in other:
            end = self._span(node.func)[1]
            self._add("function", end - len(name), end, other[name])
        if name == "reshape":  # numpy takes any negative number for the side that is open
            self.visit(node.func)
        else:
            self.generic_visit(node)


def places(module: str, source: str) -> list[Mutant]:
    """Every mutant of a module that still parses, in the order of the text."""
    visitor = _Places(module, source)
    visitor.visit(ast.parse(source))
    return sorted({m for m in visitor.found if _parses(apply(source, m))}, key=lambda m: (m.start, m.end, m.after))


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def apply(source: str, mutant: Mutant) -> str:
    """The module's text with the change made."""
    return source[: mutant.start] + mutant.after + source[mutant.end :]


def draw(count: int, seed: int) -> list[Mutant]:
    """`count` mutants, equally many of each module, the same for the same seed and sources.

    The order is that of a hash of each place, so that an edit elsewhere in a module leaves the others where they are.
    """
    piles = []
    for module in MODULES:
        source = (ROOT / module).read_text(encoding="utf-8")

        def rank(mutant: Mutant, source: str = source) -> str:
            return hashlib.sha256(repr((seed, mutant.key(source))).encode()).hexdigest()

        piles.append(sorted(places(module, source), key=rank))
    chosen: list[Mutant] = []
    while len(chosen) < count and any(piles):
        for pile in piles:
            if pile and len(chosen) < count:
                chosen.append(pile.pop())
    return chosen


class Verdict(NamedTuple):
    """How a run of a module's tests ended: killed, timeout, survived or broken (no tests ran)."""

    verdict: str
    test: str
    seconds: float


def run_tests(tree: Path, tests: tuple[str, ...], timeout_s: float) -> Verdict:
    """Runs test files in a copy of the tree until one fails, in a fork: the libraries are imported already."""
    started = time.monotonic()
    log = tree / "pytest.log"
    child = os.fork()
    if not child:
        _run_pytest(tree, tests, log)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - started
        if done:
            break
        if seconds > timeout_s:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Verdict("timeout", tests[0], seconds)
        time.sleep(0.05)
    code = os.waitstatus_to_exitcode(status)
    if not code:
        return Verdict("survived", "", seconds)
    failed = re.findall(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", log.read_text(errors="replace"), re.MULTILINE)
    # 1: a test failed; 2: not even importable; below 0: the mutant took the whole process down.
    return Verdict("killed" if code in (1, 2) or code < 0 else "broken", failed[0] if failed else tests[0], seconds)


def _run_pytest(tree: Path, tests: tuple[str, ...], log: Path) -> NoReturn:
    """What the fork does; it does not return. Our own modules are forgotten, so that the copy's are imported."""
    code = 3
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(tree)
        os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1")
        sys.dont_write_bytecode = True
        for name in [
            name for name in sys.modules if name.split(".")[0] in ("jetson", "pipeline", "benchmarks", "tests")
        ]:
            del sys.modules[name]
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
        line = ["-q", "-x", "--no-header", "--tb=no", f"--rootdir={tree}"]
        line += [f"--deselect=tests/{name}" for name in LEFT_OUT]
        code = int(pytest.main([*line, *(f"tests/{test}" for test in tests)]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def preload() -> None:
    """Import what tests import and take long to: each fork begins with it."""
    for name in ("numpy", "cv2", "onnx", "onnxruntime", "hypothesis", "keras", "tf2onnx"):
        importlib.import_module(name)


def copy_tree(folder: Path) -> Path:
    """A copy of what tests read, without bytecode: a changed module may have the size and second of the old one."""
    for name in TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


NOTICED = ("killed", "timeout")
KEY = ("module", "text", "column", "before", "after")
COLUMNS = (*KEY[:1], "line", "kind", *KEY[1:], "verdict", "test", "seconds", "commit", "note")


def read(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """Rows of an earlier run, by the key of their mutant."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {tuple(row[c] for c in KEY): row for row in csv.DictReader(file)}


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with files.aside(str(path)) as part, open(part, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def judge(mutants: list[Mutant], known: dict[tuple[str, ...], dict[str, str]], path: Path) -> Iterator[dict[str, str]]:
    """Runs what `known` lacks, and gives a row for each mutant; the file is rewritten after every one."""
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    rows: dict[tuple[str, ...], dict[str, str]] = dict(known)
    usual: dict[str, float] = {}
    skipped: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = copy_tree(Path(folder))
        for mutant in mutants:
            source = (ROOT / mutant.module).read_text(encoding="utf-8")
            key = mutant.key(source)
            if key not in known:
                if mutant.module in skipped:
                    continue
                tests = MODULES[mutant.module]
                if mutant.module not in usual:
                    sound = run_tests(tree, tests, 600)
                    if sound.verdict != "survived":
                        print(f"{mutant.module}: its tests fail without any change ({sound.test})", flush=True)
                        skipped.add(mutant.module)
                        continue
                    usual[mutant.module] = sound.seconds
                (tree / mutant.module).write_text(apply(source, mutant), encoding="utf-8")
                verdict = run_tests(tree, tests, 30 + 10 * usual[mutant.module])
                (tree / mutant.module).write_text(source, encoding="utf-8")
                row = dict(zip(KEY, key))
                row.update(kind=mutant.kind, verdict=verdict.verdict, test=verdict.test)
                rows[key] = {**row, "seconds": f"{verdict.seconds:.1f}", "commit": asked.stdout.strip()}
            rows[key]["line"] = str(mutant.line)
            write(path, list(rows.values()))
            yield rows[key]


def judge_patches(folder: Path) -> int:
    """Applies each *.patch of a folder alone, runs the tests of the module it changes; the number that survived."""
    survived = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        tree = copy_tree(Path(place))
        for patch in sorted(folder.glob("*.patch")):
            module = re.findall(r"^\+\+\+ b/(\S+)", patch.read_text(encoding="utf-8"), re.MULTILINE)[0]
            with patch.open("rb") as text:
                subprocess.run(["patch", "-p1", "--no-backup-if-mismatch", "-s"], cwd=tree, stdin=text, check=True)
            verdict = run_tests(tree, MODULES[module], 600)
            shutil.copy(ROOT / module, tree / module)
            survived += verdict.verdict == "survived"
            print(f"{patch.name}: {verdict.verdict} {verdict.test} ({verdict.seconds:.0f} s)", flush=True)
    return survived


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="run those that survived once more")
    parser.add_argument("--only", default="", metavar="WORD", help="only modules with this word in their path")
    parser.add_argument("--patches", type=Path, help="a folder of *.patch files instead of drawn places")
    args = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    preload()
    if args.patches:
        return 1 if judge_patches(args.patches) else 0
    mutants = draw(args.count, args.seed)
    sources = {module: (ROOT / module).read_text(encoding="utf-8") for module in MODULES}
    current: set[tuple[str, ...]] = {
        m.key(sources[m.module]) for m in mutants
    }  # rows of places that are no more, or not drawn, are dropped
    known: dict[tuple[str, ...], dict[str, str]]
    known = {k: row for k, row in read(args.out).items() if k in current}
    if args.again:
        known = {k: row for k, row in known.items() if row["verdict"] in NOTICED or args.only not in row["module"]}
    rows = []
    for row in judge([m for m in mutants if args.only in m.module], known, args.out):
        rows.append(row)
        if row["verdict"] not in NOTICED:
            print(f"{row['module']}:{row['line']} {row['before']!r} -> {row['after']!r} {row['verdict']}", flush=True)
    killed = sum(row["verdict"] in NOTICED for row in rows)
    print(f"{killed} of {len(rows)} mutants were noticed ({killed / max(1, len(rows)):.0%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
