"""Which faces count as unlabelled, and what the maps of a detector become, against plain counts and a known net."""

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from benchmarks import mine_ignores

box = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30), st.integers(1, 30))


def plain(a, b):
    """Cells of both, of either, of the smaller one."""
    cells = [{(x, y) for x in range(x0, x0 + w) for y in range(y0, y0 + h)} for x0, y0, w, h in (a, b)]
    both = len(cells[0] & cells[1])
    return both / len(cells[0] | cells[1]), both / min(map(len, cells))


@settings(max_examples=60, deadline=None)
@given(st.lists(box, max_size=4), st.lists(box, max_size=4))
def test_unlabelled_faces_are_those_that_touch_no_label(faces, labels):
    found = np.array([(x, y, x + w, y + h, 0.5) for x, y, w, h in faces], float).reshape(-1, 5)
    labelled = np.array([(x, y, x + w, y + h) for x, y, w, h in labels], float).reshape(-1, 4)
    kept = mine_ignores.unlabelled(found, labelled)
    wanted = [
        row
        for row, face in zip(found, faces)
        if all(iou < 0.3 and inside < 0.5 for iou, inside in (plain(face, label) for label in labels))
    ]
    assert np.array_equal(kept, np.array(wanted).reshape(-1, 5))


def test_maps_become_boxes_in_pixels_of_the_image(tmp_path):
    # A net whose four maps are constants: one face, 24 px wide and 40 high, at row 5, column 9 of a grid of stride 4.
    heat = np.zeros((1, 1, 16, 32), np.float32)
    heat[0, 0, 5, 9], heat[0, 0, 5, 10] = 0.9, 0.8  # the neighbour is the same face
    size = np.log(np.broadcast_to(np.array([10.0, 6.0], np.float32)[None, :, None, None], (1, 2, 16, 32)))
    offset = np.zeros((1, 2, 16, 32), np.float32)
    maps = {"537": heat, "538": size, "539": offset, "540": np.zeros((1, 10, 16, 32), np.float32)}
    nodes = [
        helper.make_node(
            "Constant", [], [name], value=onnx.numpy_helper.from_array(np.ascontiguousarray(value, np.float32))
        )
        for name, value in maps.items()
    ]
    graph = helper.make_graph(
        nodes,
        "maps",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [10, 3, 32, 32])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(value.shape)) for name, value in maps.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), tmp_path / "m.onnx")
    session = mine_ignores.open_model(str(tmp_path / "m.onnx"), 1)
    faces = mine_ignores.find_faces(session, np.zeros((32, 64, 3), np.uint8), 832, 0.35)  # seen at 128 x 64
    centre_x, centre_y = (9 + 0.5) * 4 / 2, (5 + 0.5) * 4 / 2
    assert np.allclose(faces, [[centre_x - 6, max(0, centre_y - 10), centre_x + 6, centre_y + 10, 0.9]], atol=1e-4)
    assert mine_ignores.find_faces(session, np.zeros((32, 64, 3), np.uint8), 832, 0.95).shape == (0, 5)
