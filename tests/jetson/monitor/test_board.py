"""The board's words: sample lines of tegrastats from the field, a sysfs tree, nvpmodel."""

import os

import pytest

from jetson.monitor import board

NANO = (
    "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,1%@102,0%@102,off] EMC_FREQ 0% "
    "GR3D_FREQ 7% PLL@39C CPU@40.5C PMIC@100C GPU@41C AO@46C thermal@41C POM_5V_IN 900/943 "
    "POM_5V_GPU 0/0 POM_5V_CPU 123/123"
)
NANO_ROOT = (
    "RAM 900/3964MB (lfb 1x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [9%@1479] EMC_FREQ "
    "3%@204 GR3D_FREQ 0%@76 APE 25 PLL@39C POM_5V_IN 1900/1943"
)
ORIN = (
    "01-03-2023 16:07:54 RAM 2257/7620MB (lfb 5392x4MB) SWAP 0/3810MB (cached 0MB) CPU [2%@729,0%@729,off,off,"
    "3%@729,1%@729] EMC_FREQ 0%@2133 GR3D_FREQ 45%@[624] NVDEC off NVJPG off VIC off OFA off "
    "APE 200 cpu@48.1C soc2@47.0C "
    "soc0@46.8C gpu@-256C tj@48.1C VDD_IN 4821mW/4830mW VDD_CPU_GPU_CV 1200mW/1190mW VDD_SOC 1400mW/1401mW"
)


def test_nano():
    value = board.parse_tegrastats(NANO)
    assert value["ram_mb"] == [613, 3964] and value["swap_mb"] == [0, 1982] and value["gpu_load"] == 7
    assert value["cpu"] == [{"load": 2, "mhz": 102}, {"load": 1, "mhz": 102}, {"load": 0, "mhz": 102}, None]
    assert value["temperature_c"] == {"PLL": 39.0, "CPU": 40.5, "GPU": 41.0, "AO": 46.0, "thermal": 41.0}
    assert value["power_mw"] == {"POM_5V_IN": 900, "POM_5V_GPU": 0, "POM_5V_CPU": 123}
    assert board.total_power(value["power_mw"]) == 900


def test_nano_as_root():
    value = board.parse_tegrastats(NANO_ROOT)
    assert (value["gpu_load"], value["gpu_mhz"], value["emc_load"]) == (0, [76], 3)
    assert value["cpu"] == [{"load": 9, "mhz": 1479}]


def test_orin():
    value = board.parse_tegrastats(ORIN)
    assert value["power_mw"] == {"VDD_IN": 4821, "VDD_CPU_GPU_CV": 1200, "VDD_SOC": 1400}
    assert value["power_average_mw"]["VDD_IN"] == 4830 and board.total_power(value["power_mw"]) == 4821
    assert value["temperature_c"] == {"cpu": 48.1, "soc2": 47.0, "soc0": 46.8, "tj": 48.1}
    assert (value["gpu_load"], value["gpu_mhz"]) == (45, [624]) and value["cpu"][2] is None


@pytest.mark.parametrize(
    "text, load, clocks",
    [
        ("GR3D_FREQ 12%@[1300,1300] x", 12, [1300, 1300]),
        ("GR3D_FREQ @[1000,1010]", None, [1000, 1010]),
        ("GR3D_FREQ 5%", 5, None),
    ],
)
def test_gpu_forms(text, load, clocks):
    value = board.parse_tegrastats(text)
    assert (value.get("gpu_load"), value.get("gpu_mhz")) == (load, clocks)


AGX_ORIN = (
    "RAM 13983/62780MB CPU [90%@2201] EMC_FREQ 1%@2133 GR3D_FREQ 14%@[407,407] GPU@69.125C tj@77.281C "
    "VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW VIN_SYS_5V0 4968mW/5048mW "
    "VDDQ_VDD2_1V8AO 1091mW/1091mW"
)
AGX_XAVIER = (
    "RAM 2721/31927MB CPU [9%@1190] EMC_FREQ 0% GR3D_FREQ 0% AO@32.5C GPU@32C PMIC@100C GPU 309/309 "
    "CPU 1242/1242 SOC 1396/1396 CV 0/0 VDDRQ 621/621 SYS5V 2416/2416"
)


@pytest.mark.parametrize(
    "line, rails, total", [(AGX_ORIN, 4, 3150 + 14312 + 4968), (AGX_XAVIER, 6, 309 + 1242 + 1396 + 621 + 2416)]
)
def test_on_an_agx_the_five_volt_rail_is_not_the_whole_board(line, rails, total):
    power = board.parse_tegrastats(line)["power_mw"]
    assert len(power) == rails and board.total_power(power) == total
    assert board.total_power({"VIN_SYS_5V0": 4968}) is None and board.total_power({"SYS5V": 2416}) is None


def test_triple_power():
    assert board.parse_tegrastats("VDD_IN 5139mW/5140mW/5141mW")["power_mw"] == {"VDD_IN": 5139}


@pytest.mark.parametrize("line", ["", "RAM", "CPU [", "CPU []", "RAM x/yMB @C a@C VDD_IN /", "\x00\xff", NANO[:70]])
def test_half_a_line_is_no_error(line):
    assert isinstance(board.parse_tegrastats(line), dict)


def test_power_mode():
    assert board.parse_nvpmodel("NV Power Mode: MAXN\n0\n") == "MAXN (0)"
    assert board.parse_nvpmodel("NVPM WARN: fan mode is not set!\nNV Power Mode: 5W\n1\n") == "5W (1)"
    assert board.parse_nvpmodel("NV Power Mode: 15W\n") == "15W"
    assert board.parse_nvpmodel("no such thing") is None


def write(root, path, text):
    path = os.path.join(str(root), path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def test_sysfs_of_a_nano(tmp_path):
    rails = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
    for number, (name, watts) in enumerate([("POM_5V_IN", 2100), ("POM_5V_GPU", 80), ("POM_5V_CPU", 400)]):
        write(tmp_path, rails + f"rail_name_{number}", name + "\n")
        write(tmp_path, rails + f"in_power{number}_input", f"{watts}\n")
    for number, (name, degrees) in enumerate([("CPU-therm", 41500), ("PMIC-Die", 100000), ("off", -256000)]):
        write(tmp_path, f"sys/class/thermal/thermal_zone{number}/type", name)
        write(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", str(degrees))
    write(tmp_path, "sys/devices/gpu.0/load", "345\n")
    write(tmp_path, "sys/devices/gpu.0/devfreq/57000000.gpu/cur_freq", "921600000")
    write(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Nano Developer Kit\0")
    for number, (name, level) in enumerate([("pwm-fan", 3), ("gpu-balanced", 0)]):
        write(tmp_path, f"sys/class/thermal/cooling_device{number}/type", name)
        write(tmp_path, f"sys/class/thermal/cooling_device{number}/cur_state", str(level))
    value = board.read_sysfs(str(tmp_path))
    assert value["model"] == "NVIDIA Jetson Nano Developer Kit"
    assert value["power_mw"] == {"POM_5V_IN": 2100, "POM_5V_GPU": 80, "POM_5V_CPU": 400}
    assert value["temperature_c"] == {"CPU-therm": 41.5}
    assert (value["gpu_load"], value["gpu_mhz"], value["throttled"]) == (34.5, [921], False)
    write(tmp_path, "sys/class/thermal/cooling_device1/cur_state", "2")
    value = board.read_sysfs(str(tmp_path))
    assert value["throttled"] is True and value["throttled_by"] == ["gpu-balanced"]


def test_sysfs_of_an_orin(tmp_path):
    for number, (name, volts, amperes) in enumerate([("VDD_IN", 5000, 960), ("VDD_SOC", 5000, 280)], 1):
        at = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon7/"
        write(tmp_path, at + f"in{number}_label", name)
        write(tmp_path, at + f"in{number}_input", str(volts))
        write(tmp_path, at + f"curr{number}_input", str(amperes))
    assert board.read_sysfs(str(tmp_path))["power_mw"] == {"VDD_IN": 4800, "VDD_SOC": 1400}


def test_a_machine_that_tells_nothing(tmp_path):
    assert board.read_sysfs(str(tmp_path)) == {}
    assert board.Board(str(tmp_path)).read() == {"cpu_load": None}


def test_tegrastats_is_read_and_an_old_line_forgotten(tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "tegrastats"
    write(tmp_path, "bin/tegrastats", f"#!/bin/sh\necho '{NANO}'\nexec sleep 600\n")
    os.chmod(str(tool), 0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    reader = board.Board(str(tmp_path / "root"), interval_s=0.05).start()
    from serving import wait_for

    try:
        wait_for(lambda: reader.state().get("total_mw") == 900, "a reading")
        reader._child.kill()
        wait_for(lambda: "power_mw" not in reader.state(), "the old reading's end")
    finally:
        reader.stop()


def test_an_odd_file_of_the_board_does_not_end_the_readings(tmp_path):
    rail = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
    write(tmp_path, rail + "rail_name_0", "POM_5V_IN")
    write(tmp_path, rail + "in_power0_input", "2000")
    reader = board.Board(str(tmp_path), interval_s=0.05).start()
    from serving import wait_for

    try:
        wait_for(lambda: reader.state().get("total_mw") == 2000, "a reading")
        write(tmp_path, rail + "in_power0_input", "inf")
        wait_for(lambda: "total_mw" not in reader.state(), "the old reading's end", 20.0)
        write(tmp_path, rail + "in_power0_input", "3000")
        wait_for(lambda: reader.state().get("total_mw") == 3000, "a new reading", 20.0)
    finally:
        reader.stop()


def test_tegrastats_that_stands_still_is_not_believed_for_ever(tmp_path, monkeypatch):
    write(tmp_path, "bin/tegrastats", f"#!/bin/sh\necho '{NANO}'\nexec sleep 600\n")
    os.chmod(str(tmp_path / "bin" / "tegrastats"), 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    reader = board.Board(str(tmp_path / "root"), interval_s=0.05).start()
    from serving import wait_for

    try:
        wait_for(lambda: reader.state().get("total_mw") == 900, "a reading")
        wait_for(lambda: "power_mw" not in reader.state(), "the old reading's end", 20.0)
        assert reader._child.poll() is None
    finally:
        reader.stop()
