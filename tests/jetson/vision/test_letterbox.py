import numpy as np
import pytest

from jetson.vision import letterbox


@pytest.mark.parametrize(
    "frame_wh, input_wh, fitted",
    [
        ((1280, 720), (416, 256), (416, 234)),
        ((1280, 720), (320, 192), (320, 180)),
        ((300, 400), (416, 256), (192, 256)),
        ((1, 1), (320, 192), (192, 192)),
        ((10000, 1), (320, 192), (320, 1)),
        ((1, 10000), (320, 192), (1, 192)),
        ((416, 256), (416, 256), (416, 256)),
    ],
)
def test_fit_keeps_the_shape_and_fills_one_side(frame_wh, input_wh, fitted):
    assert letterbox.fit(frame_wh, input_wh) == fitted


@pytest.mark.parametrize("frame_wh", [(416, 256), (640, 480), (1280, 720), (641, 479), (100, 300), (1, 1), (3000, 7)])
def test_letterbox_puts_the_frame_top_left_and_fills_the_rest(frame_wh):
    frame = np.full((frame_wh[1], frame_wh[0], 3), (10, 20, 30), np.uint8)
    blob, scale = letterbox.letterbox(frame, (416, 256))
    width, height = letterbox.fit(frame_wh, (416, 256))
    assert blob.shape == (1, 3, 256, 416) and blob.dtype == np.float32
    for channel, value in enumerate((10, 20, 30)):
        assert (blob[0, channel, :height, :width] == value).all()
    assert (blob[0, :, height:] == letterbox.PAD).all()
    assert (blob[0, :, :, width:] == letterbox.PAD).all()
    assert scale == (width / frame_wh[0], height / frame_wh[1])


def test_letterbox_writes_into_out_and_overwrites_everything_there():
    out = np.full((1, 3, 192, 320), -1, np.float32)
    blob, _ = letterbox.letterbox(np.zeros((50, 200, 3), np.uint8), (320, 192), out)
    assert blob is out
    assert (out >= 0).all()


@pytest.mark.parametrize("input_wh", [(416, 256), (320, 192)])
def test_a_buffer_that_is_used_again_is_as_one_made_anew(input_wh):
    # What stands in the padding of frames of another shape must not stay there; what is right is not written again.
    random = np.random.RandomState(0)
    out, filled = np.full((1, 3, input_wh[1], input_wh[0]), np.nan, np.float32), None
    for wh in [(640, 480), (640, 480), (320, 240), (200, 300), (1280, 720), (416, 256), (640, 480), (640, 480)]:
        frame = random.randint(0, 256, (wh[1], wh[0], 3)).astype(np.uint8)
        _, scale = letterbox.letterbox(frame, input_wh, out, filled)
        filled = letterbox.fit(wh, input_wh)
        wanted, wanted_scale = letterbox.letterbox(frame, input_wh)
        assert (out == wanted).all() and scale == wanted_scale


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_letterbox_refuses_what_is_no_frame(frame):
    with pytest.raises(ValueError):
        letterbox.letterbox(frame, (320, 192))


def test_letterbox_refuses_a_wrong_buffer():
    frame = np.zeros((4, 4, 3), np.uint8)
    for out in (np.zeros((1, 3, 320, 192), np.float32), np.zeros((1, 3, 192, 320), np.float64)):
        with pytest.raises(ValueError):
            letterbox.letterbox(frame, (320, 192), out)


@pytest.mark.parametrize("wh", [(1280, 720), (1920, 1080), (1281, 721), (640, 480), (2560, 1440)])
def test_shrinking_counts_every_pixel(wh):
    # A checkerboard of single pixels is mean grey at any scale; a resize that skips pixels shows stripes.
    frame = (np.indices((wh[1], wh[0])).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    small = letterbox.shrink(frame, letterbox.fit(wh, (320, 192)))
    inner = small[1:-1, 1:-1].astype(int)
    assert abs(inner - 127.5).max() < 8


def test_boxes_go_back_to_the_frame_within_half_an_input_pixel():
    frame = np.zeros((721, 1283, 3), np.uint8)
    _, scale = letterbox.letterbox(frame, (416, 256))
    there = np.array([[100.0, 50.0, 300.0, 400.0], [0.0, 0.0, 1283.0, 721.0]])
    back = letterbox.to_frame(there * np.array([scale[0], scale[1]] * 2), scale, (1283, 721))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, there, atol=1e-3)


def test_boxes_are_clipped_to_the_frame():
    back = letterbox.to_frame([[-5, -5, 500, 500]], (0.5, 0.5), (100, 80))
    assert back.tolist() == [[0, 0, 100, 80]]
    assert letterbox.to_frame(np.zeros((0, 4)), (1, 1), (5, 5)).shape == (0, 4)
