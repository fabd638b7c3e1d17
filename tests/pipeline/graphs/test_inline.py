"""Work inside of If, Loop, Scan and local functions counts as outside of them, and is linted as outside of them."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.graphs import inline, lint, shapes
from pipeline.graphs.fusion import layers
from pipeline.latency import cli as predict

SIDE = 32
FLOAT = TensorProto.FLOAT


def value(name, shape=None, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def weights(seed=0):
    random = np.random.default_rng(seed)
    return [
        constant("w", random.normal(0, 1, (8, 3, 3, 3)).astype(np.float32)),
        constant("w2", random.normal(0, 1, (8, 8, 3, 3)).astype(np.float32)),
    ]


def convolutions(prefix):
    return [
        helper.make_node("Conv", ["images", "w"], [prefix + "a"], name=prefix + "c1", pads=[1] * 4),
        helper.make_node("Conv", [prefix + "a", "w2"], [prefix + "o"], name=prefix + "c2", pads=[1] * 4),
    ]


def made(nodes, initializers, functions=(), outputs=None, opsets=(("", 13),)):
    graph = helper.make_graph(
        nodes, "g", [value("images", [1, 3, SIDE, SIDE])], outputs or [value("y", [1, 8, SIDE, SIDE])], initializers
    )
    opset_imports = [helper.make_opsetid(*pair) for pair in opsets]
    return helper.make_model(graph, functions=functions, opset_imports=opset_imports, ir_version=8)


def branch(nodes, output):
    return helper.make_graph(nodes, output, [], [value(output)])


def plain():
    return made([*convolutions("t"), helper.make_node("Identity", ["to"], ["y"], name="i")], weights())


def if_model(condition, other=None):
    nodes = [] if isinstance(condition, onnx.TensorProto) else [condition]
    stored = [condition] if isinstance(condition, onnx.TensorProto) else []
    else_branch = other or branch([helper.make_node("Conv", ["images", "w"], ["eo"], name="e", pads=[1] * 4)], "eo")
    node = helper.make_node(
        "If", ["cond"], ["y"], name="if0", then_branch=branch(convolutions("t"), "to"), else_branch=else_branch
    )
    return made([*nodes, node], [*weights(), *stored])


def function_model():
    body = [
        helper.make_node("Conv", ["X", "W"], ["a"], name="fc1", pads=[1] * 4),
        helper.make_node("Conv", ["a", "W2"], ["Y"], name="fc2", pads=[1] * 4),
    ]
    opset = helper.make_opsetid("", 13)
    block = helper.make_function("my", "Block", ["X", "W", "W2"], ["Y"], body, [opset])
    call = helper.make_node("Block", ["images", "w", "w2"], ["y"], name="b", domain="my")
    return made([call], weights(), [block], opsets=(("", 13), ("my", 1)))


def loop_model(trips, stacked=False):
    """y = images through `trips` convolutions of 3 to 3 channels, one after the other."""
    body = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "k"], ["conv"], name="c", pads=[1] * 4),
            helper.make_node("Identity", ["go"], ["go_on"], name="g"),
            *([helper.make_node("Identity", ["conv"], ["row"], name="r")] if stacked else []),
        ],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("x", [1, 3, SIDE, SIDE])],
        [value("go_on", [], TensorProto.BOOL), value("conv", [1, 3, SIDE, SIDE])]
        + ([value("row", [1, 3, SIDE, SIDE])] if stacked else []),
    )
    outputs = [value("y", [1, 3, SIDE, SIDE])] + ([value("rows", [trips, 1, 3, SIDE, SIDE])] if stacked else [])
    node = helper.make_node("Loop", ["trips", "", "images"], [o.name for o in outputs], name="loop0", body=body)
    kernel = constant("k", np.random.default_rng(1).normal(0, 0.3, (3, 3, 3, 3)).astype(np.float32))
    return made([node], [kernel, constant("trips", np.array(trips, np.int64))], outputs=outputs)


def scan_model():
    """Every channel of the picture, one after the other, added to a state and given back doubled."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "part"], ["sum"], name="a"),
            helper.make_node("Add", ["part", "part"], ["twice"], name="d"),
        ],
        "body",
        [value("state", [1, SIDE, SIDE]), value("part", [1, SIDE, SIDE])],
        [value("sum", [1, SIDE, SIDE]), value("twice", [1, SIDE, SIDE])],
    )
    node = helper.make_node(
        "Scan", ["start", "images"], ["y", "all"], name="scan0", body=body, num_scan_inputs=1, scan_input_axes=[1],
        scan_output_axes=[1],
    )  # fmt: skip
    start = constant("start", np.zeros((1, SIDE, SIDE), np.float32))
    return made([node], [start], outputs=[value("y", [1, SIDE, SIDE]), value("all", [1, 3, SIDE, SIDE])])


def run(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(2).normal(0, 1, (1, 3, SIDE, SIDE)).astype(np.float32)
    return session.run(None, {"images": image})


TRUE = constant("cond", np.array(True))
EVERY = {
    "if true": lambda: if_model(TRUE),
    "if false": lambda: if_model(constant("cond", np.array(False))),
    "function": function_model,
    "loop": lambda: loop_model(5),
    "loop with rows": lambda: loop_model(3, stacked=True),
    "scan": scan_model,
}


@pytest.mark.parametrize("name", EVERY)
def test_what_is_inlined_computes_the_same(name):
    model = EVERY[name]()
    before = model.SerializeToString()
    flat, _ = inline.inlined(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(flat, full_check=True)
    assert not flat.functions and not any(node.op_type in inline.BODIES for node in flat.graph.node)
    for ours, theirs in zip(run(flat), run(model), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def macs(model):
    return sum(layer.macs for layer in layers(shapes.from_model(model)))


@pytest.mark.parametrize("model", [lambda: if_model(TRUE), function_model])
def test_the_same_convolutions_inside_cost_what_they_cost_outside(model):
    inside, outside = (predict.predict_graph(shapes.from_model(m)) for m in (model(), plain()))
    assert inside.macs == outside.macs
    assert inside.latency_ms == pytest.approx(outside.latency_ms, rel=1e-6)


def test_of_an_if_that_nobody_can_decide_the_heavier_branch_counts_and_is_told():
    computed = helper.make_node("ReduceMax", ["images"], ["most"], name="m", keepdims=0)
    decided = helper.make_node("Cast", ["most"], ["cond"], name="b", to=TensorProto.BOOL)
    model = if_model(decided)
    model.graph.node.insert(0, computed)
    graph = shapes.from_model(model)
    assert sum(layer.macs for layer in layers(graph)) == macs(plain())
    (note,) = predict.predict_graph(graph).notes[-1:]
    assert "if0" in note and "then branch" in note
    # And nested: an If in the branch of an If.
    inner = branch([helper.make_node("If", ["cond"], ["eo"], name="if1", then_branch=branch(convolutions("n"), "no"),
                                     else_branch=branch(convolutions("m"), "mo"))], "eo")  # fmt: skip
    nested = if_model(constant("cond", np.array(False)), inner)
    assert macs(nested) == macs(plain())


@pytest.mark.parametrize("trips, counted", [(1, 1), (7, 7), (64, 64), (1000, 64)])
def test_a_loop_counts_as_often_as_it_turns(trips, counted):
    one = SIDE * SIDE * 3 * 27
    graph = shapes.from_model(loop_model(trips))
    assert sum(layer.macs for layer in layers(graph)) == counted * one
    assert str(counted) in graph.notes[0] and (str(trips) in graph.notes[0])


def test_a_loop_without_a_number_counts_once_and_is_told():
    model = loop_model(5)
    (node,) = model.graph.node
    node.input[0], node.input[1] = "", "go"
    model.graph.initializer.append(constant("go", np.array(True)))
    graph = shapes.from_model(model)
    assert sum(layer.macs for layer in layers(graph)) == SIDE * SIDE * 3 * 27
    assert "once" in graph.notes[0]


def test_lint_looks_into_every_branch_and_function(tmp_path):
    def refused(model):
        path = str(tmp_path / "m.onnx")
        onnx.save(model, path)
        return sorted(finding.node for finding in lint.lint(path))

    def sub(name):
        nodes = [
            helper.make_node("NonZero", ["images"], ["nz_" + name], name="nz_" + name),
            helper.make_node("Cast", ["nz_" + name], ["o_" + name], to=FLOAT, name="c_" + name),
        ]
        return branch(nodes, "o_" + name)

    node = helper.make_node("If", ["cond"], ["y"], name="if0", then_branch=sub("a"), else_branch=sub("b"))
    assert refused(made([node], [TRUE], outputs=[value("y")])) == ["nz_a", "nz_b"]
    assert refused(if_model(TRUE)) == [] == refused(loop_model(3))
    # A weight that a body computes is no constant, one that stands outside of it is.
    body = branch(
        [
            helper.make_node("Abs", ["w"], ["own"], name="abs"),
            helper.make_node("Conv", ["images", "own"], ["eo"], name="computed", pads=[1] * 4),
        ],
        "eo",
    )
    assert refused(if_model(TRUE, body)) == ["computed"]
