"""Graphs inside of graphs: the bodies of If, Loop and Scan, and local functions, put where they are called.

What is launched is in the bodies; a planner that looks at the outermost nodes alone counts none of it.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from pipeline.graphs import edit

BODIES = ("If", "Loop", "Scan")
MOST_TURNS = 64  # a loop that turns more often is put in so many times, and told

Names = dict[str, str]  # what a body calls a tensor: what it is called outside
Nodes = list[onnx.NodeProto]


def bodies(node: onnx.NodeProto) -> list[tuple[str, onnx.GraphProto]]:
    """(attribute name, graph) of every graph that a node holds."""
    kind = onnx.AttributeProto.GRAPH
    return [(entry.name, entry.g) for entry in node.attribute if entry.type == kind]


def walk(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph inside of it, outer ones first."""
    yield graph
    for node in graph.node:
        for _, body in bodies(node):
            yield from walk(body)


def inlined(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model without If, Loop, Scan and local functions, and a note on each choice that was made.

    Of an If the branch with more weights stays (the condition decides where it is a constant); a Loop is put in as
    often as its constant trip count says, a Scan as often as its input is long, both at most MOST_TURNS times, and once
    where nothing says it. `model` is not changed, and is given back where there is nothing to do.
    """
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    if not any(node.op_type in BODIES for node in model.graph.node):
        return model, ()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    work = _Inliner(copy)
    nodes = work.nodes(copy.graph, {}, "")
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(work.initializers)
    del copy.graph.value_info[:]
    return copy, tuple(work.notes)


class _Inliner:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.values: dict[str, np.ndarray] = {}  # of constants that may say how often a loop turns
        self.sizes: dict[str, int] = {}  # elements of every constant
        self.keep(model.graph.initializer)
        self.shapes = _shapes(model)
        self.initializers: list[onnx.TensorProto] = []
        self.notes: list[str] = []
        self.count = 0

    def keep(self, tensors: Iterable[onnx.TensorProto]) -> None:
        for tensor in tensors:
            self.sizes[tensor.name] = int(np.prod(tensor.dims))
            if self.sizes[tensor.name] == 1 and not tensor.external_data:
                self.values[tensor.name] = numpy_helper.to_array(tensor)

    def nodes(self, graph: onnx.GraphProto, names: Names, prefix: str) -> Nodes:
        """The nodes of a graph under the names of its caller; what only the graph knows gets the prefix."""
        out: Nodes = []
        for position, node in enumerate(graph.node):
            name = prefix + (node.name or f"{node.op_type}_{position}")
            given = [names.get(n, n) for n in node.input]
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.values[names.get(node.output[0], node.output[0])] = numpy_helper.to_array(node.attribute[0].t)
            made_here = [names.get(n, n) for n in node.output]
            held = dict(bodies(node))
            if node.op_type == "If" and held:
                out += self.branch(name, given, made_here, held, names)
            elif node.op_type == "Loop" and held:
                out += self.loop(name, given, made_here, held["body"], names)
            elif node.op_type == "Scan" and held:
                out += self.scan(name, node, given, made_here, held["body"], names)
            else:
                copy = onnx.NodeProto()
                copy.CopyFrom(node)
                del copy.input[:], copy.output[:]
                copy.input.extend(given)
                copy.output.extend(made_here)
                copy.name = name if prefix else node.name
                out.append(copy)
        return out

    def body(self, graph: onnx.GraphProto, given: list[str], outer: Names, prefix: str) -> tuple[Nodes, list[str]]:
        """(nodes, names of the outputs) of a body whose inputs are `given`."""
        names = dict(outer)
        for entry, name in zip(graph.input, given, strict=True):
            names[entry.name] = name
        for tensor in graph.initializer:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.name = names[tensor.name] = prefix + tensor.name
            self.initializers.append(copy)
            self.keep([copy])
        # Names of the body hide those outside of it.
        names.update({made: prefix + made for node in graph.node for made in node.output if made})
        return self.nodes(graph, names, prefix), [names[entry.name] for entry in graph.output]

    def branch(
        self, name: str, given: list[str], made: list[str], held: dict[str, onnx.GraphProto], names: Names
    ) -> Nodes:
        condition = self.values.get(given[0])
        sizes = {key: self.weights(graph, names) for key, graph in held.items()}
        if condition is not None:
            # TensorRT 8.2 builds both branches where it cannot fold; where it can, one is left, and one always runs.
            chosen = "then_branch" if bool(np.all(condition)) else "else_branch"
            self.notes.append(f"{name} (If): the {chosen.replace('_', ' ')} is counted, its condition is a constant")
        else:
            chosen = max(sorted(held), key=lambda key: (sizes[key], len(held[key].node)))
            self.notes.append(f"{name} (If): the {chosen.replace('_', ' ')} is counted, the one with more weights")
        nodes, results = self.body(held[chosen], [], names, f"{name}/")
        return nodes + self.copies(name, results, made)

    def loop(self, name: str, given: list[str], made: list[str], body: onnx.GraphProto, names: Names) -> Nodes:
        trips = self.values.get(given[0]) if given[0] else None
        turns = self.turns(name, "Loop", int(np.reshape(trips, -1)[0]) if trips is not None else None)
        carried = given[2:]
        condition = given[1] if len(given) > 1 and given[1] else self.constant(np.array(True))
        stacked: list[list[str]] = [[] for _ in made[len(carried) :]]
        out: Nodes = []
        for turn in range(turns):
            number = self.constant(np.array(turn, np.int64))
            nodes, results = self.body(body, [number, condition, *carried], names, f"{name}/{turn}/")
            out += nodes
            condition, carried = results[0], results[1 : 1 + len(carried)]
            for rows, row in zip(stacked, results[1 + len(carried) :], strict=True):
                rows.append(row)
        for rows, result in zip(stacked, made[len(carried) :], strict=True):
            out += self.stack(rows, result, 0)
        return out + self.copies(name, carried, made[: len(carried)])

    def scan(
        self, name: str, node: onnx.NodeProto, given: list[str], made: list[str], body: onnx.GraphProto, names: Names
    ) -> Nodes:
        sequences = edit.attribute(node, "num_scan_inputs")
        carried, series = given[: len(given) - sequences], given[len(given) - sequences :]
        axes = edit.attribute(node, "scan_input_axes", [0] * sequences)
        dims = self.shapes.get(series[0], ())
        turns = self.turns(name, "Scan", dims[axes[0]] if axes[0] < len(dims) and dims[axes[0]] > 0 else None)
        count = len(made) - len(carried)
        stacked: list[list[str]] = [[] for _ in range(count)]
        out: Nodes = []
        for turn in range(turns):
            number = self.constant(np.array(turn, np.int64))
            parts = []
            for place, (sequence, axis) in enumerate(zip(series, axes, strict=True)):
                parts.append(f"{name}/{turn}/in{place}")
                out.append(helper.make_node("Gather", [sequence, number], [parts[-1]], name=parts[-1], axis=axis))
            nodes, results = self.body(body, [*carried, *parts], names, f"{name}/{turn}/")
            out += nodes
            carried = results[: len(carried)]
            for rows, row in zip(stacked, results[len(carried) :], strict=True):
                rows.append(row)
        for rows, result, axis in zip(
            stacked, made[len(carried) :], edit.attribute(node, "scan_output_axes", [0] * count), strict=True
        ):
            out += self.stack(rows, result, axis)
        return out + self.copies(name, carried, made[: len(carried)])

    def turns(self, name: str, kind: str, wanted: int | None) -> int:
        turns = 1 if wanted is None else max(1, min(wanted, MOST_TURNS))
        told = "how often it turns is not in the file: once" if wanted is None else f"{turns} turns"
        if wanted is not None and wanted > MOST_TURNS:
            told = f"{turns} of {wanted} turns"
        self.notes.append(f"{name} ({kind}): {told} counted")
        return turns

    def stack(self, rows: list[str], result: str, axis: int) -> Nodes:
        if not result:
            return []
        axes = self.constant(np.array([axis], np.int64))
        taken = [f"{row}/{result}" for row in rows]
        nodes = [helper.make_node("Unsqueeze", [row, axes], [name], name=name) for row, name in zip(rows, taken)]
        return [*nodes, helper.make_node("Concat", taken, [result], name=f"{result}/stack", axis=axis)]

    def copies(self, name: str, results: list[str], made: list[str]) -> Nodes:
        return [
            helper.make_node("Identity", [a], [b], name=f"{name}/{b}") for a, b in zip(results, made, strict=True) if b
        ]

    def constant(self, value: np.ndarray) -> str:
        self.count += 1
        name = f"inlined_constant_{self.count}"
        self.initializers.append(numpy_helper.from_array(value, name))
        self.values[name] = value
        return name

    def weights(self, graph: onnx.GraphProto, names: Names) -> int:
        """Elements of all constants that a graph's nodes read, inner graphs with it."""
        total = 0
        for inner in walk(graph):
            own = {tensor.name: int(np.prod(tensor.dims)) for tensor in inner.initializer}
            for node in inner.node:
                for name in node.input:
                    total += own.get(name, self.sizes.get(names.get(name, name), 0))
        return total


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes as far as the file says them, 0 for what is open."""
    try:
        graph = shape_inference.infer_shapes(model).graph
    except Exception:  # what contradicts is told where shapes are needed
        graph = model.graph
    entries = [*graph.input, *graph.value_info, *graph.output]
    return {e.name: tuple(d.dim_value for d in e.type.tensor_type.shape.dim) for e in entries}
