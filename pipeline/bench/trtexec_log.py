"""What NVIDIA's trtexec printed, read into the form in which `jetmask bench` keeps measurements.

The lines are those of TensorRT 8.0 to 10 (NVIDIA/TensorRT samples/common/sampleReporting.cpp and sampleOptions.cpp;
read against public logs of 8.0.1 and 8.2.1 on a Nano, 8.4, 8.5.2 on a Xavier, 8.6 and 10.2 to 10.3). A log may hold
several runs, and lines of other programs between them.
"""

import hashlib
import math
import os
import re
import shlex
from typing import Any, NamedTuple

from jetson.errors import BadInput
from pipeline import targets

_PREFIX = re.compile(r"^.*?\[[VIWEF]\](?: |$)")  # "[05/13/2025-10:36:46] [I] ", with a container's own stamp before it
_MARK = re.compile(r"&&&& (RUNNING|PASSED|FAILED) TensorRT\.trtexec\b(?: \[TensorRT v([\d.]{1,12})\])?[^#]*#? ?(.*)")
_NUMBER = r"([-+]?[\d.]{1,24}(?:e[-+]?\d{1,3})?|inf|nan)"
_TIMES = re.compile(r"^(Latency|Enqueue Time|H2D Latency|GPU Compute Time|D2H Latency): (.*min = .*)$")
_VALUE = re.compile(r"(min|max|mean|median|percentile\(([\d.]{1,6})%\)) =? ?" + _NUMBER + r" ms")
_BINDING = re.compile(r"^(?:Created input|Input) binding for (.+?) with dimensions ([\dx]{1,64})(?: and type .*)?$")
_PROFILE = re.compile(r"^=== Profile \((\d{1,9}) iterations? ?\) ===$")
_SMS = {"nano": 1, "tx2": 2, "xavier-nx": 6, "orin-nano": 8}  # NVIDIA's module data sheets: cores by cores in an SM
_KEPT = {
    "Latency": "host",
    "Enqueue Time": "enqueue",
    "H2D Latency": "h2d",
    "GPU Compute Time": "compute",
    "D2H Latency": "d2h",
}


class Layer(NamedTuple):
    """A row of the profile: ms in one inference, on average and in the median (None before TensorRT 8.5)."""

    name: str
    average_ms: float
    median_ms: float | None


class Run(NamedTuple):
    """One run. `times`: {"compute", "host", "h2d", "d2h", "enqueue"}: {"p50", "p90", "p95", "p99", "mean", ...} in ms.

    What the log does not say is None. `input_wh`: (width, height) of an image input. `settings`: streams, cuda_graph,
    spin_wait, transfers, dla, sparsity.
    """

    version: str | None
    gpu: str | None
    capability: str | None
    sms: int | None
    onnx: str | None
    engine: str | None
    precision: str | None
    inputs: dict[str, tuple[int, ...]]
    input_wh: tuple[int, int] | None
    batch: int | None
    queries: int | None
    throughput_qps: float
    times: dict[str, dict[str, float]]
    layers: list[Layer]
    settings: dict[str, Any]


def read(path: str) -> tuple[list[Run], str]:
    """The runs of a log file, and the file's SHA-256; BadInput where it holds no finished one."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadInput(f"cannot read the log: {error.strerror}", path, "what trtexec printed") from error
    # PowerShell's `>` writes UTF-16.
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    return parse(data.decode(coding, "replace"), path), hashlib.sha256(data).hexdigest()


def parse(text: str, where: str) -> list[Run]:
    """The runs in what trtexec printed. BadInput names the line where a run failed or a figure cannot be one."""
    runs: list[Run] = []
    why: BadInput | None = None
    for first, lines in _segments(text):
        try:
            runs.append(_Segment(lines, first, where).run())
        except BadInput as error:
            why = why or error
    if not runs:
        raise why or BadInput(
            "no run of trtexec is in this file",
            where,
            "what trtexec printed, all of it",
            "trtexec … 2>&1 | tee trtexec.log",
        )
    return runs


def _segments(text: str) -> list[tuple[int, list[str]]]:
    """[(number of the first line, lines)], cut where a run begins and after it ends."""
    out: list[tuple[int, list[str]]] = []
    start, lines = 1, []  # type: int, list[str]
    for number, line in enumerate(text.splitlines(), 1):
        mark = _MARK.search(line)
        if mark and mark.group(1) == "RUNNING" and lines:
            out.append((start, lines))
            start, lines = number, []
        lines.append(line)
        if mark and mark.group(1) != "RUNNING":
            out.append((start, lines))
            start, lines = number + 1, []
    out.append((start, lines))
    return [
        (first, kept)
        for first, kept in out
        if any(
            "TensorRT.trtexec" in line or "=== Performance summary" in line or "GPU Compute Time:" in line
            for line in kept
        )
    ]


class _Segment:
    def __init__(self, lines: list[str], first: int, where: str) -> None:
        self.where, self.first = where, first
        self.lines = [_PREFIX.sub("", line).strip() for line in lines]
        self.raw = lines
        self.said: dict[str, str] = {}
        self.version: str | None = None
        self.command = ""
        self.inputs: dict[str, tuple[int, ...]] = {}
        self.times: dict[str, dict[str, float]] = {}
        self.layers: list[Layer] = []

    def run(self) -> Run:
        for index, line in enumerate(self.lines):
            mark = _MARK.search(self.raw[index])
            if mark:
                self._mark(mark, index)
                continue
            found = _TIMES.match(line)
            if found:
                self.times[_KEPT[found.group(1)]] = self._times(found.group(2), index)
                continue
            binding = _BINDING.match(line)
            if binding:
                self._input(binding.group(1), binding.group(2))
                continue
            profile = _PROFILE.match(line)
            if profile:
                self.layers = self._profile(index + 1)
                continue
            key, colon, value = line.partition(":")
            if colon and len(key) < 40:
                self.said.setdefault(key.strip(), value.strip())
        if "compute" not in self.times or "p50" not in self.times["compute"]:
            remedy = (
                "add --separateProfileRun to --dumpProfile"
                if self.layers
                else "run it without --buildOnly and --skipInference, and keep all that it prints"
            )
            raise BadInput(
                "this run of trtexec has no performance summary", self._line(0), "a line `GPU Compute Time:`", remedy
            )
        return self._made()

    def _line(self, index: int) -> str:
        return f"{self.where}, line {self.first + index}"

    def _mark(self, mark: re.Match[str], index: int) -> None:
        self.version = _version(mark.group(2)) or self.version
        self.command = mark.group(3) or self.command
        if mark.group(1) == "FAILED":
            errors = [text for text, raw in zip(self.lines, self.raw) if "[E]" in raw and text]
            raise BadInput(
                "this run of trtexec failed" + (": " + errors[-1][:300] if errors else ""),
                self._line(index),
                "a run that ends with PASSED",
            )

    def _times(self, text: str, index: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, share, number in _VALUE.findall(text):
            key = (
                f"p{float(share):g}"
                if share and share.count(".") < 2 and share != "."
                else {"median": "p50"}.get(name, name)
            )
            found[key] = self._number(number, index)
        return found

    def _number(self, text: str, index: int) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < 1e9:
            raise BadInput(f"{text!r} is not a time", self._line(index), "milliseconds")
        return value

    def _input(self, name: str, dimensions: str) -> None:
        numbers = tuple(int(part) for part in dimensions.split("x") if part)
        if numbers and all(0 < number < 1 << 31 for number in numbers) and len(numbers) <= 8:
            self.inputs[name] = numbers

    def _profile(self, start: int) -> list[Layer]:
        """The table after `=== Profile`; the name is the first column up to 8.5 and the last one from 8.6 on."""
        header = self.lines[start] if start < len(self.lines) else ""
        last = header.endswith("Layer")
        if not (last or header.startswith("Layer")):
            return []
        columns = 4 if "Median" in header else 3  # total, average, (median,) share
        numbers = r"\s+".join([_NUMBER] * columns)
        row = re.compile(rf"^{numbers}\s+(.+)$" if last else rf"^(.+?)\s+{numbers}$")
        layers = []
        for index in range(start + 1, len(self.lines)):
            found = row.match(self.lines[index])
            if not found:
                break
            groups = list(found.groups())
            name = groups.pop() if last else groups.pop(0)
            if name != "Total":
                layers.append(
                    Layer(
                        name, self._number(groups[1], index), self._number(groups[2], index) if columns == 4 else None
                    )
                )
        return layers

    def _made(self) -> Run:
        said, options = self.said, _options(self.command)
        self._inputs_by_shapes(options)
        wh, batch = self._image()
        queries = re.search(r"Timing trace has (\d{1,9}) queries", "\n".join(self.lines))
        return Run(
            version=self.version or _version(said.get("TensorRT version")),
            gpu=said.get("Selected Device") or None,
            capability=said.get("Compute Capability") or None,
            sms=_whole(said.get("SMs")),
            onnx=options.get("onnx") or said.get("Input filename") or None,
            engine=options.get("loadEngine") or options.get("saveEngine"),
            precision=self._precision(options),
            inputs=self.inputs,
            input_wh=wh,
            batch=batch,
            queries=int(queries.group(1)) if queries else None,
            throughput_qps=self._throughput(),
            times=self.times,
            layers=self.layers,
            settings={
                "streams": _whole(said.get("Streams")),
                "cuda_graph": _switch(said.get("CUDA Graph")),
                "spin_wait": _switch(said.get("Spin-wait")),
                "transfers": _switch(said.get("Data transfers")),
                "dla": said.get("DLACore") or None,
                "sparsity": said.get("Sparsity") if said.get("Sparsity") != "Disabled" else None,
            },
        )

    def _inputs_by_shapes(self, options: dict[str, str]) -> None:
        """Inputs that have no line of their own: as the run says its shapes (name=1x3x96x96), else as it was given
        them (name:1x3x96x96)."""
        shapes = [
            part.strip().rpartition("=")
            for key, value in self.said.items()
            if key in ("Input inference shape", "Input inference shapes") and "=" in value
            for part in value.split(",")
        ]
        self._shapes(shapes)
        if not self.inputs:
            self._shapes([part.rpartition(":") for part in options.get("shapes", "").split(",")])

    def _shapes(self, shapes: list[tuple[str, str, str]]) -> None:
        for name, _, dimensions in shapes:
            if name and name not in self.inputs and re.fullmatch(r"[\dx]{1,64}", dimensions):
                self._input(name, dimensions)

    def _image(self) -> tuple[tuple[int, int] | None, int | None]:
        """((width, height), batch) of the first input that is an image, by its three channels; None where none is."""
        for numbers in self.inputs.values():
            if len(numbers) == 4 and numbers[1] == 3:
                return (numbers[3], numbers[2]), numbers[0]
            if len(numbers) == 4 and numbers[3] == 3:
                return (numbers[2], numbers[1]), numbers[0]
        return None, None

    def _throughput(self) -> float:
        """Inferences a second: as the run says, else by its median compute time."""
        said = re.match(_NUMBER, self.said.get("Throughput", ""))
        if said:
            return self._number(said.group(1), 0)
        median = self.times["compute"]["p50"]
        return 1e3 / median if median else 0.0

    def _precision(self, options: dict[str, str]) -> str | None:
        if "loadEngine" in options and not {"fp16", "int8", "best"} & set(options):
            return None  # the engine knows; what trtexec prints is only what it was not told
        if "stronglyTyped" in options:
            return None
        text = self.said.get("Precision", "").upper()
        if not text:
            text = " ".join(options).upper() if self.command else ""
            text = (
                "INT8"
                if "BEST" in text.split()
                else text
                if {"FP16", "INT8"} & set(text.split())
                else ("FP32" if self.command else "")
            )
        for name in ("int8", "fp16", "fp32"):
            if name.upper() in text:
                return name
        return None


def _options(command: str) -> dict[str, str]:
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return {word[2:].partition("=")[0]: word.partition("=")[2] for word in words if word.startswith("--")}


def _version(text: str | None) -> str | None:
    """ "8201" -> "8.2.1", "100300" -> "10.3.0"; a dotted one as it is."""
    if not text or not re.fullmatch(r"\d{4,6}|\d{1,3}(\.\d{1,4}){1,3}", text):
        return None
    if "." in text:
        return text
    number = int(text)
    if number < 10000:
        return f"{number // 1000}.{number // 100 % 10}.{number % 100}"
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\d{1,6}", text) else None


def _switch(text: str | None) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(text or "")


def kind_of(run: Run) -> str | None:
    """The target whose GPU this is, None where it is none of ours: an AGX Orin has an Orin Nano's capability."""
    return next(
        (
            name
            for name, count in _SMS.items()
            if (targets.TARGETS[name].compute_capability, count) == (run.capability, run.sms)
        ),
        None,
    )


def name_of(run: Run) -> str:
    """A name for what ran: the model's file, or the engine's."""
    path = re.split(r"[/\\]", run.onnx or run.engine or "")[-1]
    return os.path.splitext(path)[0] or "unnamed"
