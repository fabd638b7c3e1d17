"""Device kinds, each described once.

Peak rates are the data sheets': FMA counted as two operations, tensor cores dense (no sparsity), at the clock of the
highest power mode. They are the ceiling of a roofline, not a promise. Sources: NVIDIA's module data sheets, and for
what a compute capability runs natively TensorRT's support matrix.
"""

from typing import NamedTuple

from jetson import hints
from jetson.engine.cuda import has_sparse
from jetson.errors import DeviceMismatch, UsageError
from pipeline import meanings

THIS_MACHINE = "this-machine"


class Target(NamedTuple):
    """One kind of device.

    peak_flops: {"fp32"|"fp16"|"int8": operations/s}; only precisions that the hardware runs natively.
    bandwidth: bytes/s of the memory that the GPU uses; ram: bytes, shared by CPU and GPU on every Jetson.
    power_modes: {name: GPU clock relative to the clock of `peak_flops`}, from nvpmodel's tables.
    """

    name: str
    title: str
    compute_capability: str | None
    tensorrt: tuple
    fast_precisions: tuple
    peak_flops: dict
    bandwidth: float
    ram: int
    jetpack: str
    l4t: str
    image: str | None
    python: str
    power_modes: dict
    workspace: int = 256 << 20
    slow_precision_reason: str = ""

    @property
    def is_jetson(self) -> bool:
        return self.compute_capability is not None

    @property
    def skips_zeros(self) -> bool:
        """Whether its tensor cores skip the zeros of weights in the 2:4 pattern."""
        return self.compute_capability is not None and has_sparse(
            (int(self.compute_capability.split(".")[0]), int(self.compute_capability.split(".")[1]))
        )


_GIB = 1 << 30

TARGETS = {
    target.name: target
    for target in (
        Target(
            name="nano",
            title="Jetson Nano 4 GB",
            compute_capability="5.3",
            tensorrt=("8.2",),
            fast_precisions=("fp32", "fp16"),
            peak_flops={"fp32": 235.9e9, "fp16": 471.9e9},  # 128 cores at 921.6 MHz; half2 doubles it
            bandwidth=25.6e9,
            ram=4 * _GIB,
            jetpack="4.6.1 to 4.6.6",
            l4t="r32.7",
            image="nvcr.io/nvidia/l4t-base:r32.7.1",
            python="3.6",
            power_modes={"MAXN (10 W)": 1.0, "5W": 640 / 921.6},
            slow_precision_reason="its GPU (compute capability 5.3) has no INT8 instructions",
        ),
        Target(
            name="tx2",
            title="Jetson TX2 8 GB",
            compute_capability="6.2",
            tensorrt=("8.2",),
            fast_precisions=("fp32", "fp16"),
            peak_flops={"fp32": 665.6e9, "fp16": 1331.2e9},  # 256 cores at 1.3 GHz
            bandwidth=59.7e9,
            ram=8 * _GIB,
            jetpack="4.6.1 to 4.6.6",
            l4t="r32.7",
            image="nvcr.io/nvidia/l4t-base:r32.7.1",
            python="3.6",
            power_modes={"MAXN": 1.0, "MAXQ (7.5 W)": 854 / 1300},
            slow_precision_reason="its GPU (compute capability 6.2) has no INT8 instructions",
        ),
        Target(
            name="xavier-nx",
            title="Jetson Xavier NX 8 GB",
            compute_capability="7.2",
            tensorrt=("8.2", "8.4", "8.5"),
            fast_precisions=("fp32", "fp16", "int8"),
            peak_flops={"fp32": 844.8e9, "fp16": 6.76e12, "int8": 12.3e12},  # 384 cores, 48 tensor cores at 1.1 GHz
            bandwidth=59.7e9,
            ram=8 * _GIB,
            jetpack="5.1",
            l4t="r35.2",
            image="nvcr.io/nvidia/l4t-tensorrt:r8.5.2-runtime",
            python="3.8",
            power_modes={"20W": 1.0, "10W": 800 / 1100},
        ),
        Target(
            name="orin-nano",
            title="Jetson Orin Nano 8 GB",
            compute_capability="8.7",
            tensorrt=("8.6", "10.3"),
            fast_precisions=("fp32", "fp16", "int8"),
            peak_flops={"fp32": 1.28e12, "fp16": 10.0e12, "int8": 20.0e12},  # 1024 cores, 32 tensor cores, 625 MHz
            bandwidth=68.0e9,
            ram=8 * _GIB,
            jetpack="6.1 to 6.2",
            l4t="r36.4",
            image="nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime",
            python="3.10",
            power_modes={"15W": 1.0, "7W": 408 / 625},
        ),
        Target(
            name=THIS_MACHINE,
            title="the CPU of this machine (ONNX Runtime)",
            compute_capability=None,
            tensorrt=(),
            fast_precisions=("fp32", "int8"),
            peak_flops={},  # measured by the calibration run of pipeline/latency/this_machine.py
            bandwidth=0.0,
            ram=0,
            jetpack="",
            l4t="",
            image=None,
            python="",
            power_modes={},
        ),
    )
}


def target(name: str) -> Target:
    """The target called `name`; UsageError names the nearest when there is none."""
    try:
        return TARGETS[name]
    except KeyError:
        near = hints.nearest(str(name).replace("_", "-"), TARGETS, meanings.DEVICES)
        raise UsageError(
            f"unknown target {name!r}",
            expected="one of " + ", ".join(TARGETS),
            remedy=hints.question(near) or "choose one of these",
        ) from None


def searched_precisions(name: str) -> list[str]:
    """The precisions that are worth a trial on target `name`: where fp16 is fast, fp32 is not."""
    fast = target(name).fast_precisions
    return [precision for precision in fast if precision != "fp32"] if "fp16" in fast else list(fast)


def check_precision(device: Target, precision: str) -> None:
    """DeviceMismatch with the reason and the advice when `device` does not run `precision` natively."""
    if precision not in ("fp32", "fp16", "int8"):
        raise UsageError(f"unknown precision {precision!r}", expected="fp32, fp16 or int8")
    if precision in device.fast_precisions:
        return
    if device.name == THIS_MACHINE:
        reason = "half precision is not faster on a CPU: ONNX Runtime converts around it"
        advice = "ask for --precision fp32 or int8"
    else:
        reason = device.slow_precision_reason
        advice = "ask for --precision fp16; int8 pays on its CPU at most (ONNX Runtime), never in a TensorRT engine"
    raise DeviceMismatch(
        f"{device.title} has no fast {precision}: {reason}",
        expected="one of " + ", ".join(device.fast_precisions),
        remedy=advice,
    )
