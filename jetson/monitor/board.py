"""What the board tells of itself: power rails, temperatures, clocks, power mode, throttling.

Sources: `tegrastats` (NVIDIA Jetson Linux Developer Guide, "tegrastats Utility"), sysfs (INA3221 monitors, thermal
zones, devfreq), `nvpmodel -q`. On any other Linux machine only what sysfs has is told. Nothing is ever set.
"""

import glob
import os
import re
import shutil
import subprocess
import threading
import time
from typing import Any, Dict, List, Optional

_TEMPERATURE = re.compile(r"(?:^|\s)([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C\b")
_POWER = re.compile(
    r"(?:^|\s)((?:POM|VDD|VDDQ|VIN|CPU|GPU|SOC|CV|NC)_[A-Z0-9_]+|VDDRQ|SYS5V|CV|GPU|CPU|SOC) "
    r"(\d+)(?:mW)?/(\d+)(?:mW)?(?:/\d+(?:mW)?)?"
)
# One rail feeds everything, or, on an AGX, these feed it together: its 5 V rail is that of what is not named (NVIDIA's
# forum, 75574 and 217088), and an AGX Orin's VDDQ rail comes behind it.
_TOTAL_RAILS = (
    ("VDD_IN",),
    ("POM_5V_IN",),
    ("SYS_VIN_HV",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)
_DUMMY_C = 100.0  # the Nano's PMIC always says 100
_FRESH_S = 5.0  # tegrastats tells every second; what it said longer ago is not the present
_OFF_C = -200.0  # a sensor that is switched off says -256


def parse_tegrastats(line: str) -> Dict[str, Any]:
    """One line of tegrastats as values; what is not there is left out. Never fails, whatever the line holds.

    Keys: ram_mb [used, total], swap_mb [used, total], cpu [{load, mhz} or None for a core that is off], gpu_load (%),
    gpu_mhz [..], emc_load (%), temperature_c {zone: °C}, power_mw {rail: mW now}, power_average_mw {rail: mW}.
    """
    value: Dict[str, Any] = {}
    for key, name in (("ram_mb", "RAM"), ("swap_mb", "SWAP")):
        match = re.search(rf"\b{name} (\d+)/(\d+)MB", line)
        if match:
            value[key] = [int(match.group(1)), int(match.group(2))]
    match = re.search(r"\bCPU \[([^\]]*)\]", line)
    if match:
        value["cpu"] = []
        for core in match.group(1).split(","):
            numbers = re.match(r"^\s*(\d+)%(?:@(\d+))?", core)
            value["cpu"].append({"load": int(numbers.group(1)), "mhz": int(numbers.group(2) or 0)} if numbers else None)
    match = re.search(r"\bGR3D_FREQ (?:(\d+)%)?(?:\s*@(?:(\d+)|\[([\d,\s]*)\]))?", line)
    if match and match.group(0).strip() != "GR3D_FREQ":
        if match.group(1) is not None:
            value["gpu_load"] = int(match.group(1))
        clocks = match.group(2) or match.group(3)
        if clocks:
            value["gpu_mhz"] = [int(clock) for clock in clocks.split(",") if clock.strip().isdigit()]
    match = re.search(r"\bEMC_FREQ (\d+)%", line)
    if match:
        value["emc_load"] = int(match.group(1))
    temperatures = {}
    for name, text in _TEMPERATURE.findall(line):
        degrees = float(text)
        if degrees > _OFF_C and not (name.upper() == "PMIC" and degrees == _DUMMY_C):
            temperatures[name] = degrees
    if temperatures:
        value["temperature_c"] = temperatures
    rails = _POWER.findall(line)
    if rails:
        value["power_mw"] = {rail[0]: int(rail[1]) for rail in rails}
        value["power_average_mw"] = {rail[0]: int(rail[2]) for rail in rails}
    return value


def parse_nvpmodel(text: str) -> Optional[str]:
    """The power mode in the output of `nvpmodel -q`, as "MAXN (0)"; None when there is none.

    >>> parse_nvpmodel("NV Fan Mode:quiet\\nNV Power Mode: 5W\\n1\\n")
    '5W (1)'
    """
    match = re.search(r"NV Power Mode:[ \t]*(\S+)[ \t]*(?:\n\s*(\d+))?", text)
    if not match:
        return None
    return f"{match.group(1)} ({match.group(2)})" if match.group(2) else match.group(1)


def total_power(power_mw: Dict[str, int]) -> Optional[int]:
    """What the whole board takes, in mW; None where its rails do not tell."""
    for rails in _TOTAL_RAILS:
        if all(rail in power_mw for rail in rails):
            return sum(power_mw[rail] for rail in rails)
    return None


def hottest(temperature_c: Dict[str, float]) -> Optional[float]:
    """The hottest of the processors' zones, by which the board slows itself down; of all where none is named so.

    >>> hottest({"AO": 46.0, "CPU": 40.5, "GPU": 41.0})
    41.0
    """
    chips = [value for zone, value in temperature_c.items() if re.match(r"(?:cpu|gpu|soc|tj|x86_pkg)", zone, re.I)]
    return max(chips or temperature_c.values(), default=None)


def _text(path: str) -> Optional[str]:
    try:
        with open(path, "rb") as file:
            return file.read(4096).decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return None


def _number(path: str) -> Optional[float]:
    text = _text(path)
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def read_sysfs(root: str = "/") -> Dict[str, Any]:
    """What sysfs tells, keys as in `parse_tegrastats`, plus model, throttled (None: unknown) and throttled_by."""
    model = _text(os.path.join(root, "proc/device-tree/model")) or _text(
        os.path.join(root, "sys/firmware/devicetree/base/model")
    )
    value: Dict[str, Any] = {"model": model} if model else {}
    value.update(_gpu(root))
    value.update(_throttled(root))
    for key, found in (("temperature_c", _temperatures(root)), ("power_mw", _rails(root))):
        if found:
            value[key] = found
    return value


def _at(root: str, pattern: str) -> List[str]:
    return sorted(glob.glob(os.path.join(root, pattern)))


def _temperatures(root: str) -> Dict[str, float]:
    """{zone: °C}, without sensors that are off and the one that always says the same."""
    found = {}
    for zone in _at(root, "sys/class/thermal/thermal_zone*"):
        name, millidegrees = _text(os.path.join(zone, "type")), _number(os.path.join(zone, "temp"))
        if not name or millidegrees is None:
            continue
        degrees = millidegrees / 1000
        if degrees > _OFF_C and not (name.upper().startswith("PMIC") and degrees == _DUMMY_C):
            found[name] = round(degrees, 1)
    return found


def _rails(root: str) -> Dict[str, int]:
    """{rail: mW}."""
    power: Dict[str, int] = {}
    # Nano and TX (L4T r32): iio with ready milliwatts.
    for path in _at(root, "sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"):
        number = path.rsplit("_", 1)[1]
        watts = _number(os.path.join(os.path.dirname(path), f"in_power{number}_input"))
        name = _text(path)
        if name and watts is not None:
            power[name] = int(watts)
    # Xavier and Orin (r34 on): hwmon with mV and mA; the hwmon index changes, so the label counts.
    for path in _at(root, "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label"):
        number = re.sub(r"\D", "", os.path.basename(path))
        folder, name = os.path.dirname(path), _text(path)
        volts = _number(os.path.join(folder, f"in{number}_input"))
        amperes = _number(os.path.join(folder, f"curr{number}_input"))
        if name and volts is not None and amperes is not None and not name.startswith("sum"):
            power[name] = int(round(volts * amperes / 1000))
    return power


def _gpu(root: str) -> Dict[str, Any]:
    """The GPU's load in % and its clock in MHz, each where it is told."""
    value: Dict[str, Any] = {}
    load = _first(_at(root, "sys/devices/gpu.0/load") + _at(root, "sys/devices/platform/gpu.0/load"))
    if load is not None:
        value["gpu_load"] = load / 10
    clock = _first(_at(root, "sys/devices/gpu.0/devfreq/*/cur_freq") + _at(root, "sys/class/devfreq/*.g*pu/cur_freq"))
    if clock is not None:
        value["gpu_mhz"] = [int(clock / 1e6)]
    return value


def _first(paths: List[str]) -> Optional[float]:
    """The number in the first of these files that holds one."""
    return next((number for number in map(_number, paths) if number is not None), None)


def _throttled(root: str) -> Dict[str, Any]:
    """Whether something slows the processors down, and what; empty where no such thing is told."""
    throttled: List[str] = []
    known = False
    for device in _at(root, "sys/class/thermal/cooling_device*"):
        name, level = _text(os.path.join(device, "type")) or "", _number(os.path.join(device, "cur_state"))
        # A fan cools too, and says so in the same place.
        if level is None or re.search(r"fan", name, re.I) or not re.search(r"cpu|gpu|throttl|clk|balanced", name, re.I):
            continue
        known = True
        if level > 0:
            throttled.append(name)
    return {"throttled": bool(throttled), "throttled_by": sorted(set(throttled))} if known else {}


class Board:
    """Reads the board every few seconds in a thread of its own; `state()` is the newest reading."""

    def __init__(self, root: str = "/", interval_s: float = 2.0) -> None:
        self._root = root
        self._interval_s = interval_s
        self._reading: Dict[str, Any] = {}
        self._stop = threading.Event()
        self._child: Optional[subprocess.Popen] = None
        self._line, self._line_at = "", 0.0
        self._cpu_before: Optional[List[int]] = None
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def start(self) -> "Board":
        """Begin to read."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread and tegrastats."""
        self._stop.set()
        if self._child is not None:
            self._child.kill()

    def state(self) -> Dict[str, Any]:
        """The newest reading: keys of `parse_tegrastats` and `read_sysfs`, power_mode, total_mw, cpu_load (%)."""
        return dict(self._reading)

    def warnings(self) -> List[str]:
        """What is wrong with the board, in words."""
        if self._reading.get("throttled"):
            return [
                "The board slows itself down ({}): it is too hot or takes too much power.".format(
                    ", ".join(self._reading.get("throttled_by", ()))
                )
            ]
        return []

    def read(self) -> Dict[str, Any]:
        """One reading, now."""
        value = read_sysfs(self._root)
        line = self._line if time.monotonic() - self._line_at < _FRESH_S else ""
        for key, found in parse_tegrastats(line).items():
            if isinstance(found, dict):
                value[key] = dict(value.get(key, {}), **found)
            else:
                value[key] = found
        mode = power_mode()
        if mode:
            value["power_mode"] = mode
        if "power_mw" in value:
            value["total_mw"] = total_power(value["power_mw"])
        value["cpu_load"] = self._cpu_load()
        return value

    def _cpu_load(self) -> Optional[float]:
        text = _text(os.path.join(self._root, "proc/stat"))
        numbers = [int(n) for n in text.splitlines()[0].split()[1:8]] if text and text.startswith("cpu ") else None
        before, self._cpu_before = self._cpu_before, numbers
        if not before or not numbers or len(numbers) < 5:
            return None
        spent = [now - then for now, then in zip(numbers, before)]
        idle = spent[3] + spent[4]
        return round(100.0 * (1 - idle / sum(spent)), 1) if sum(spent) > 0 else None

    def _run(self) -> None:
        tool = shutil.which("tegrastats") or ("/usr/bin/tegrastats" if os.path.exists("/usr/bin/tegrastats") else None)
        if tool:
            threading.Thread(target=self._listen, args=(tool,), name="tegrastats", daemon=True).start()
        while True:
            try:
                self._reading = self.read()
            except Exception:  # an odd file of some board; what was read before must not be taken for the present
                self._reading = {}
            if self._stop.wait(self._interval_s):
                return

    def _listen(self, tool: str) -> None:
        while not self._stop.is_set():
            try:
                child = self._child = subprocess.Popen(
                    [tool, "--interval", "1000"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                for line in child.stdout or ():
                    self._line, self._line_at = line.decode("utf-8", "replace"), time.monotonic()
                child.wait()
            except OSError:
                pass
            self._line = ""  # an old line must not be taken for the present
            self._stop.wait(10.0)


_mode: List[Any] = [0.0, None]


def power_mode() -> Optional[str]:
    """The power mode by nvpmodel, asked at most once a minute (it persists over reboots, so it stands in results)."""
    now = time.monotonic()
    if _mode[0] == 0.0 or now - _mode[0] > 60.0:
        _mode[0] = now
        tool = shutil.which("nvpmodel")
        _mode[1] = None
        if tool:
            try:
                output = subprocess.run(
                    [tool, "-q"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    timeout=10,
                ).stdout
                _mode[1] = parse_nvpmodel(output.decode("utf-8", "replace"))
            except (OSError, subprocess.TimeoutExpired):
                pass
    return _mode[1]


def describe() -> Dict[str, Any]:
    """This machine in a benchmark's row: model, processor, cores, power mode, temperatures, throttling."""
    value = read_sysfs()
    processor = ""
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "Model")):
            processor = line.partition(":")[2].strip()
            break
    return {
        "machine": value.get("model") or processor or os.uname().machine,
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "power_mode": power_mode(),
        "temperature_c": value.get("temperature_c", {}),
        "throttled": value.get("throttled"),
        "kernel": os.uname().release,
    }
