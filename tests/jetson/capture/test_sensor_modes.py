"""Which mode of a CSI sensor is asked for: a picture is never squeezed, and no rate is asked that a mode has not."""

import doctest
import os
import stat

import pytest

from jetson.capture import sensor_modes
from jetson.capture.sensor_modes import SENSORS, Mode, centred, choose

IMX219, IMX477 = SENSORS["imx219"], SENSORS["imx477"]
SIZES = [
    (640, 480),
    (640, 360),
    (1280, 720),
    (1920, 1080),
    (3264, 2464),
    (1000, 1000),
    (4000, 3000),
    (480, 640),
    (322, 242),
]


@pytest.mark.parametrize("modes", [IMX219, IMX477, (Mode(1936, 1096, 30.0),)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fps", [None, 15.0, 30.0, 60.0, 0.0])
def test_what_is_seen_has_the_shape_that_was_asked_and_a_rate_that_the_mode_has(modes, size, fps):
    chosen = choose(modes, size, fps)
    left, top, right, bottom = chosen.crop or (0, 0, chosen.mode.width, chosen.mode.height)
    assert 0 <= left < right <= chosen.mode.width and 0 <= top < bottom <= chosen.mode.height
    # Centred, to the pair of pixels.
    assert abs(left - (chosen.mode.width - right)) <= 2 and abs(top - (chosen.mode.height - bottom)) <= 2
    shape = (right - left) / (bottom - top)
    assert abs(shape / (size[0] / size[1]) - 1) <= 0.011, "squeezed"
    assert 0 < chosen.fps <= chosen.mode.fps and chosen.mode in modes


@pytest.mark.parametrize(
    "modes, size, fps, mode, crop",
    [
        (IMX219, (640, 480), None, (1640, 1232), None),  # was 1280x720, squeezed
        (IMX219, (640, 480), 60.0, (1280, 720), (160, 0, 1120, 720)),  # 4:3 at 60 only by a crop
        (IMX219, (3264, 2464), None, (3264, 2464), None),  # was asked for at 30 frames/s: the sensor gives 21
        (IMX219, (1280, 720), None, (1280, 720), None),
        (IMX219, (1920, 1440), None, (3264, 2464), None),
        (IMX219, (4000, 3000), None, (3264, 2464), None),  # larger than the sensor: all of it, scaled up
        (IMX477, (1920, 1080), 60.0, (1920, 1080), None),
    ],
)
def test_the_mode_that_is_taken(modes, size, fps, mode, crop):
    chosen = choose(modes, size, fps)
    assert (chosen.mode[:2], chosen.crop) == (mode, crop)
    assert chosen.fps == min(fps or 30.0, chosen.mode.fps)


def test_examples_and_the_middle():
    assert doctest.testmod(sensor_modes).failed == 0
    assert centred((100, 100), (100, 100)) == (0, 0, 100, 100)


def test_other_sensors_are_asked_through_v4l2(tmp_path, monkeypatch):
    tool = tmp_path / "v4l2-ctl"
    tool.write_text(
        "#!/bin/sh\n"
        "echo '  [0]: RG10 (10-bit Bayer)'\n"
        "echo '    Size: Discrete 2592x1944'; echo '      Interval: Discrete 0.033s (30.000 fps)'\n"
        "echo '    Size: Discrete 1280x720'; echo '      Interval: Discrete 0.008s (120.000 fps)'\n"
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    modes = sensor_modes.modes_of("vi-output, ov5693 6-0036", "/dev/video0")
    assert modes == [Mode(2592, 1944, 30.0), Mode(1280, 720, 120.0)]
    assert sensor_modes.modes_of("vi-output, imx477 7-001a", "/dev/video0") == IMX477, "the table comes first"
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert sensor_modes.modes_of("", "") == IMX219


def test_sensors_are_counted_as_csi_counts_them(tmp_path):
    for number, name in ((10, "vi-output, imx219 8-0010"), (0, "vi-output, imx477 7-001a"), (1, "C270 HD WEBCAM")):
        folder = tmp_path / f"video{number}"
        folder.mkdir()
        (folder / "name").write_text(name + "\n")
    assert sensor_modes.sensor(0, str(tmp_path)) == ("vi-output, imx477 7-001a", "/dev/video0")
    assert sensor_modes.sensor(1, str(tmp_path)) == ("vi-output, imx219 8-0010", "/dev/video10")
    assert sensor_modes.sensor(2, str(tmp_path)) == ("", "")
