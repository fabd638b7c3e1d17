"""The capture: real child processes, killed, frozen, starved."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from serving import alive, wait_for

from jetson.capture import camera, child, gstreamer, reader, source


class Watching:
    """A camera that is read all the time."""

    def __init__(self, uri, env=None, monkeypatch=None, **options):
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        gstreamer._elements.clear()
        self.camera = camera.Camera(source.parse(uri, **options.pop("parse", {})), **options)

    def __enter__(self):
        return self.camera.start()

    def __exit__(self, *_):
        self.camera.stop()
        gstreamer._elements.clear()


def take_all(cam):
    """[(number, second, at, turn)] of every frame up to the end."""
    found = []
    while not cam.over:
        frame = cam.take()
        if frame is None:
            time.sleep(0.001)
            continue
        found.append((frame.number, frame.second, frame.at, frame.turn))
        frame.release()
    return found


def frame_of(cam):
    return wait_for(cam.take, "a frame; last error: " + cam.last_error)


def live_again(cam):
    """Until a frame comes that is younger than now."""
    now = time.monotonic()
    wait_for(lambda: cam.last_frame > now and cam.status == "live", "a new frame")


def test_file_gives_its_frames(clip):
    with Watching(clip) as cam:
        frame = frame_of(cam)
        assert frame.image.shape == (240, 320, 3) and frame.image.dtype == np.uint8
        assert frame.wh == (320, 240) and abs(time.monotonic() - frame.arrived) < 5
        frame.release()


def test_every_frame_of_a_file_once_and_in_order(clip):
    numbers = []
    with Watching(clip, every_frame=True, parse={"loop": False}) as cam:
        while cam.status != "ended" or cam.fresh():
            frame = cam.take()
            if frame is not None:
                numbers.append(frame.number)
                frame.release()
            else:
                time.sleep(0.001)
    assert numbers == list(range(90))
    assert cam.dropped == 0


def test_a_slow_reader_gets_the_newest_frame_and_memory_stays(clip):
    with Watching("synthetic://?size=160x120&fps=200") as cam:
        held = [frame_of(cam) for _ in range(3)]
        pixels = [frame.image.copy() for frame in held]
        wait_for(lambda: cam.frames > 60, "frames")
        assert cam.dropped > 30
        assert cam._made <= camera._BUFFERS
        for frame, before in zip(held, pixels):
            assert (frame.image == before).all(), "a frame that is still held was overwritten"
            frame.release()
        newest = frame_of(cam)
        assert newest.number >= 50
        newest.release()


def test_truth_comes_with_drawn_frames():
    with Watching("synthetic://?size=320x240&fps=0&seed=2") as cam:
        truth = frame_of(cam).extra["truth"]
    assert len(truth["xyxy"]) == len(truth["labels"]) == len(truth["ids"])


def test_killed_child_is_replaced(clip):
    with Watching(clip) as cam:
        frame_of(cam).release()
        first = cam.pid
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: cam.lost_count == 1, "notice")
        assert "killed (signal 9)" in cam.last_error
        live_again(cam)
        assert cam.pid != first and cam.restarts >= 1


def test_the_rate_does_not_count_the_time_without_a_picture(clip):
    with Watching(clip) as cam:
        wait_for(lambda: cam.frames > 30, "frames")
        cam._arrivals = type(cam._arrivals)((at - 3600.0 for at in cam._arrivals), cam._arrivals.maxlen)  # an hour ago
        os.kill(cam.pid, signal.SIGKILL)
        wait_for(lambda: cam.status == "lost", "loss")
        live_again(cam)
        before = cam.frames
        wait_for(lambda: cam.frames > before + 5, "frames")
        assert cam.fps > 1


def test_frozen_child_is_killed_and_replaced(clip):
    with Watching(clip) as cam:
        frame_of(cam).release()
        first = cam.pid
        os.kill(first, signal.SIGSTOP)
        wait_for(lambda: cam.lost_count == 1, "notice")
        assert "stopped" in cam.last_error
        live_again(cam)
        assert not alive(first)


def test_frozen_camera_is_killed_and_replaced(csi_env, monkeypatch):
    with Watching("csi://0?size=320x240", csi_env, monkeypatch) as cam:
        frame_of(cam).release()
        first = cam.pid
        os.kill(first, signal.SIGSTOP)
        wait_for(lambda: cam.lost_count == 1, "notice")
        assert "no frame for 2 s" in cam.last_error
        live_again(cam)
        assert not alive(first)


def test_an_unforeseen_fault_does_not_end_the_camera(clip, monkeypatch):
    true, calls = child.command, []

    def command(*words):
        calls.append(words)
        if len(calls) == 1:
            raise KeyError("unforeseen")
        return true(*words)

    monkeypatch.setattr(child, "command", command)
    with Watching(clip) as cam:
        frame_of(cam).release()
        assert cam.lost_count == 1 and "unforeseen" in cam.last_error


def test_source_that_appears_later(clip, tmp_path):
    path = str(tmp_path / "later.avi")
    with Watching(path) as cam:
        wait_for(lambda: cam.status == "lost", "notice")
        assert "does not exist" in cam.last_error
        shutil.copy(clip, path + ".part")
        os.rename(path + ".part", path)
        live_again(cam)


def test_no_signal_goes_to_a_number_that_is_free_again(clip, monkeypatch):
    with Watching(clip, parse={"fps": 0, "loop": False}) as cam:
        take_all(cam)
        sent = []
        monkeypatch.setattr(os, "killpg", lambda pid, number: sent.append(pid))
        cam.stop()
    assert sent == []


def test_a_rate_of_0_is_as_fast_as_possible(tmp_path, draw):
    """A clip and a folder of 100 pictures, one a second: at their own rate they would take 100 s."""
    folder, clip = tmp_path / "pictures", str(tmp_path / "slow.avi")
    folder.mkdir()
    writer = cv2.VideoWriter(clip, cv2.VideoWriter_fourcc(*"MJPG"), 1, (64, 48))
    picture = draw((64, 48), [], 1)
    for number in range(100):
        cv2.imwrite(str(folder / f"{number:03}.png"), picture)
        writer.write(picture)
    writer.release()
    for path in (clip, str(folder)):
        with Watching(path, parse={"fps": 0, "loop": False}) as cam:
            wait_for(lambda cam=cam: cam.frames, "a frame")
            began = time.monotonic()
            take_all(cam)
            assert cam.frames == 100 and time.monotonic() - began < 50  # far from both, whatever the machine does


def test_truncated_file_plays_what_is_there(clip, tmp_path):
    path = tmp_path / "cut.avi"
    with open(clip, "rb") as file:
        data = file.read()
    path.write_bytes(data[: len(data) // 3])
    with Watching(str(path), parse={"loop": False}) as cam:
        found = take_all(cam)
        assert cam.status == "ended" and 0 < len(found) < 90, cam.last_error
        assert "ends early" in cam.broken and f"at {len(found) / 30:.1f} s of 3.0 s" in cam.broken


def test_not_a_video(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"this is no video" * 100)
    with Watching(str(path)) as cam:
        wait_for(lambda: cam.status == "lost", "notice")
        assert "not a video" in cam.last_error
    with Watching(str(path), parse={"loop": False}) as cam:  # read once: it becomes no video by waiting
        wait_for(lambda: cam.status == "ended", "the end")
        assert "not a video" in cam.broken and cam.frames == 0


# -- a file is no camera ---------------------------------------------------------------------------------------------


def test_a_reader_that_pauses_goes_on_and_one_that_dies_is_followed_by_another(clip):
    """Every frame once and in order, at its own time, whatever happens to the process that reads."""
    found = []
    with Watching(clip, parse={"loop": False}) as cam:
        while not cam.over:
            frame = cam.take()
            if frame is None:
                time.sleep(0.001)
                continue
            found.append((frame.number, frame.second, frame.at))
            frame.release()
            if len(found) == 20:
                pid = cam.pid
                os.kill(pid, signal.SIGSTOP)
                time.sleep(camera.LOST_S - 0.5)
                os.kill(pid, signal.SIGCONT)
            if len(found) == 40:
                os.kill(cam.pid, signal.SIGKILL)
            if len(found) == 60:
                os.kill(cam.pid, signal.SIGSTOP)  # and nobody lets it go on
    assert [number for number, _, _ in found] == list(range(90))
    assert [second for _, second, _ in found] == pytest.approx([number / 30 for number in range(90)], abs=1e-3)
    assert np.diff([at for _, _, at in found]) == pytest.approx([1 / 30] * 89, abs=1e-3)
    assert cam.lost_count == cam.restarts == 2 and not cam.broken


def test_a_picture_that_takes_long_is_waited_for(tmp_path, draw, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), draw((64, 48), []))
    cv2.imwrite(str(tmp_path / "b.png"), draw((64, 48), []))
    true = child.command

    def slow(*words):
        argv, framed = true(*words)
        program = (
            "import sys, time; from jetson.capture import reader; plain = reader._image\n"
            "reader._image = lambda path: (time.sleep(3 if path.endswith('b.png') else 0), plain(path))[1]\n"
            "sys.exit(reader.main(sys.argv[1:]))"
        )
        return [argv[0], "-c", program] + argv[3:], framed

    monkeypatch.setattr(child, "command", slow)
    monkeypatch.setattr(camera, "SLOW_S", 1.5)
    slowest = 0.0
    with Watching(str(tmp_path), parse={"loop": False, "fps": 0}) as cam:
        count = 0
        while not cam.over:
            slowest = max(slowest, cam.slow_s)
            frame = cam.take()
            count += frame is not None
            if frame is not None:
                frame.release()
            time.sleep(0.001)
    assert count == 2 and cam.restarts == 0 and slowest > 1.5


def test_a_file_whose_reader_dies_at_the_same_frame_each_time_ends_there(clip, monkeypatch):
    true = child.command

    def dying(*words):
        argv, framed = true(*words)
        program = (
            "import os, sys; from jetson.capture import reader; plain = reader.send\n"
            "def send(out, frame, extra, number, turn, at):\n"
            "    os.kill(os.getpid(), 9) if number == 30 else plain(out, frame, extra, number, turn, at)\n"
            "reader.send = send; sys.exit(reader.main(sys.argv[1:]))"
        )
        return [argv[0], "-c", program] + argv[3:], framed

    monkeypatch.setattr(child, "command", dying)
    with Watching(clip, every_frame=True, parse={"loop": False}) as cam:
        found = take_all(cam)
    assert len(found) == 30 and "signal 9" in cam.broken and "at 1.0 s" in cam.broken


def test_each_pass_of_a_file_is_told_apart_and_scene_time_rises(clip):
    with Watching(clip, every_frame=True) as cam:
        found = []
        while len(found) < 200:
            frame = cam.take()
            if frame is None:
                time.sleep(0.001)
                continue
            found.append((frame.turn, frame.second, frame.at))
            frame.release()
    assert [turn for turn, _, _ in found] == [number // 90 for number in range(200)]
    steps = np.diff([at for _, _, at in found])
    assert (steps > 0).all()
    inside = [step for number, step in enumerate(steps, 1) if number % 90]
    assert inside == pytest.approx([1 / 30] * len(inside), abs=1e-3)


NAMES = [b"gr\xc3\xbc\xc3\x9fe \xe4\xb8\xad.avi", b"caf\xe9.avi", b"a:b.avi", b"100%d.avi", b'it\'s "so".avi']


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "LANG": "C"}, {"LC_ALL": "C.UTF-8"}])
@pytest.mark.parametrize("name", NAMES)
def test_names_of_every_kind_are_opened_in_every_locale(clip, tmp_path, root, name, locale):
    folder = os.path.join(os.fsencode(str(tmp_path)), b"f\xc3\xb6lder")
    os.mkdir(folder)
    shutil.copy(os.fsencode(clip), os.path.join(folder, name))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((24, 32, 3), np.uint8))
    shutil.copy(os.fsencode(str(tmp_path / "a.png")), os.path.join(folder, name[:-4] + b".png"))
    program = (
        "import json, sys, time; sys.path.insert(0, {!r})\n"
        "from jetson.capture import camera, source\n"
        "for path in sys.argv[1:]:\n"
        "    made = source.parse(path, loop=False, fps=0)\n"
        "    c = camera.Camera(made).start(); count = 0\n"
        "    while not c.over:\n"
        "        f = c.take()\n"
        "        count += f is not None\n"
        "        f.release() if f is not None else time.sleep(.001)\n"
        "    c.stop(); print(json.dumps([count, c.broken, made.label]))"
    ).format(root)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    paths = [os.path.join(folder, name), os.path.join(folder, name[:-4] + b".png")]
    out = subprocess.check_output(
        [os.fsencode(sys.executable), b"-c", program.encode()] + paths, env=dict(environment, **locale), timeout=60
    )
    told = [json.loads(line) for line in out.decode().splitlines()]
    assert [count for count, _, _ in told] == [90, 1] and not any(broken for _, broken, _ in told)
    assert all(label.encode("utf-8") for _, _, label in told)  # whatever the file is called, it can be printed


@pytest.mark.parametrize("seed", range(10))
def test_no_name_but_a_plain_one_reaches_opencv(tmp_path, seed):
    """OpenCV gets ASCII that it cannot take for a pattern or an address, and it is the same file."""
    draw = random.Random(seed)
    letters = [bytes([one]) for one in range(1, 256) if one != ord("/")]
    letters += ["\u00fc".encode(), "\u4e2d".encode(), "\U0001f600".encode(), b"%d", b"..", b":", b"http:"]
    for _ in range(20):
        name = (b"".join(draw.choice(letters) for _ in range(draw.randint(1, 20))) + b".avi")[:250]
        path = os.path.join(os.fsencode(str(tmp_path)), name)
        with open(path, "wb") as file:
            file.write(name)
        given = reader._name_for_opencv(os.fsdecode(path))
        assert re.match(r"^[ -~]+$", given) and not re.search(r"[%:\\\\]", given), given
        with open(given, "rb") as file:
            assert file.read() == name
        if given.startswith("/proc/self/fd/"):
            os.close(int(given.rpartition("/")[2]))
        os.remove(path)


def test_damaged_image_in_a_folder_is_left_out(tmp_path, draw):
    import cv2

    cv2.imwrite(str(tmp_path / "b.png"), draw((64, 48), []))
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    with Watching(str(tmp_path)) as cam:
        frame = frame_of(cam)
        assert frame.extra == {"file": "b.png"}
        wait_for(lambda: "a.jpg" in cam.last_error, "the note")


def test_no_child_survives_a_stop(clip):
    with Watching(clip) as cam:
        frame_of(cam)
        pid = cam.pid
    wait_for(lambda: not alive(pid), "the child's end")


def test_child_dies_with_a_killed_parent(clip, root):
    program = (
        "import sys, time; sys.path.insert(0, {!r}); from jetson.capture import camera, child, gstreamer, source; "
        "c = camera.Camera(source.parse({!r})).start()\n"
        "while not c.frames: time.sleep(.01)\n"
        "print(c.pid, flush=True); time.sleep(600)"
    ).format(root, clip)
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        child = int(parent.stdout.readline())
        os.kill(child, signal.SIGSTOP)  # one that is stuck never sees that its pipe closes
        parent.kill()
        parent.wait()
        wait_for(lambda: not alive(child), "the child's end")
    finally:
        parent.kill()
        parent.stdout.close()


# -- GStreamer: the pipelines of a Jetson, on stand-ins ------------------------------------------------------------


def test_csi(csi_env, monkeypatch):
    with Watching("csi://0?size=640x480", csi_env, monkeypatch) as cam:
        frame = frame_of(cam)
        assert frame.wh == (640, 480)
        wait_for(lambda: cam.frames > 20, "frames")


def test_a_csi_picture_of_another_shape_is_the_middle_of_a_mode(csi_env, monkeypatch):
    # 4:3 at 60 frames/s: the IMX219 has it only as a part of 1280x720.
    with Watching("csi://0?size=640x480&fps=60", csi_env, monkeypatch) as cam:
        assert frame_of(cam).wh == (640, 480)
        wait_for(lambda: cam.frames > 5, "frames")
        assert not cam.lost_count


def test_a_csi_process_is_asked_before_it_is_killed(csi_env, monkeypatch):
    """One that is killed while it holds a session can wedge Argus. gst-launch stops its pipeline at SIGINT."""
    sent = []
    real = os.killpg
    monkeypatch.setattr(os, "killpg", lambda pid, number: (sent.append(number), real(pid, number)))
    with Watching("csi://0?size=320x240", csi_env, monkeypatch) as cam:
        frame_of(cam)
    assert sent == [signal.SIGINT]


def test_csi_missing_sensor(csi_env, monkeypatch):
    with Watching("csi://2", csi_env, monkeypatch) as cam:
        wait_for(lambda: cam.status == "lost", "notice")
        assert "Invalid camera device specified 2" in cam.last_error


def test_csi_source_dies_and_comes_back(csi_env, monkeypatch):
    monkeypatch.setenv("CSI_DIE_AFTER", "10")
    with Watching("csi://0", csi_env, monkeypatch) as cam:
        wait_for(lambda: cam.lost_count >= 2, "two deaths")
        assert "Argus disconnected" in cam.last_error
        live_again(cam)


def test_csi_camera_that_sends_the_same_picture(csi_env, monkeypatch):
    monkeypatch.setenv("CSI_FREEZE_AFTER", "20")
    monkeypatch.setattr(camera, "FROZEN_S", 1.5)
    with Watching("csi://0?size=320x240", csi_env, monkeypatch) as cam:
        wait_for(lambda: cam.lost_count == 1, "notice")
        assert "frozen" in cam.last_error
        live_again(cam)


@pytest.mark.usefixtures("gstreamer")
def test_csi_element_missing():
    gstreamer._elements.clear()
    if gstreamer.have_element("nvarguscamerasrc"):
        pytest.skip("this is a Jetson")
    with Watching("csi://0") as cam:
        wait_for(lambda: cam.status == "lost", "notice")
        assert 'no element "nvarguscamerasrc"' in cam.last_error


def test_odd_width_has_padded_rows(csi_env, monkeypatch):
    with Watching("csi://0?size=322x242", csi_env, monkeypatch) as cam:
        frame = frame_of(cam)
        assert frame.wh == (322, 242)
        rows = frame.image.reshape(242, -1)
        # Every row of the stand-in's picture has one grey value; a wrong stride would slant it.
        assert (rows.max(axis=1).astype(int) - rows.min(axis=1) <= 2).all()


def test_usb_camera_unplugged_and_back(v4l2_env, monkeypatch):
    monkeypatch.setenv("SHIM_UNPLUG_AFTER", "20")
    with Watching("/dev/video0", v4l2_env, monkeypatch) as cam:
        frame = frame_of(cam)
        assert frame.wh == (640, 480)
        wait_for(lambda: cam.lost_count >= 1, "notice")
        live_again(cam)


def test_rtsp_server_absent_killed_and_back(rtsp):
    with Watching(rtsp.uri) as cam:
        wait_for(lambda: cam.status == "lost", "notice that nobody is there")
        server = rtsp.start()
        live_again(cam)
        assert frame_of(cam).wh == (640, 360)
        lost = cam.lost_count
        server.kill()
        server.wait()
        wait_for(lambda: cam.lost_count > lost, "notice")
        rtsp.start()
        live_again(cam)


@pytest.mark.full
def test_rtsp_server_frozen_and_back(rtsp):
    server = rtsp.start()
    with Watching(rtsp.uri) as cam:
        live_again(cam)
        os.kill(server.pid, signal.SIGSTOP)
        lost = cam.lost_count
        wait_for(lambda: cam.lost_count > lost, "notice")
        assert cam.status == "lost" and "no frame" in cam.last_error
        os.kill(server.pid, signal.SIGCONT)
        live_again(cam)


def test_restarts_cost_no_buffers(csi_env, monkeypatch):
    """A camera that comes and goes for days: each capture process leaves the frame that it was writing."""
    with Watching("csi://0?size=320x240", csi_env, monkeypatch) as cam:
        monkeypatch.setattr(camera, "_BACK_OFF_S", (0.0,))
        for count in range(10):
            frame_of(cam).release()
            os.kill(cam.pid, signal.SIGKILL)
            wait_for(lambda count=count: cam.restarts > count, "loss")
            live_again(cam)
        held = [frame_of(cam) for _ in range(3)]  # as many as a runner has under way
        before, waiting = cam.frames, 0
        for _ in range(50):
            time.sleep(0.01)
            waiting += cam.fresh()
        assert cam.frames > before + 2 and waiting > 40
        for frame in held:
            frame.release()
