"""The graph of a Keras functional model, and a way through it with any values."""

from collections.abc import Callable, Sequence
from typing import Any

import keras


def functional(operation: Any) -> Any:
    """The graph of a functional or Sequential model, None for anything else (also for a model with its own call)."""
    if not isinstance(operation, keras.Model):
        return None
    if isinstance(operation, keras.Sequential):
        operation = operation._functional
    own = operation is not None and type(operation).call.__module__.startswith("keras.src.")
    return operation if own and hasattr(operation, "_nodes_by_depth") else None


def walk(function: Any, inputs: Sequence[Any], call: Callable[..., Any], path: tuple[str, ...] = ()) -> list[Any]:
    """Go through a functional graph with any values: call(operation, args, kwargs, path, outputs) gives each result.

    Models used as layers are entered; `path` has their names. Returns the list of the outputs' values.
    """
    values = {id(tensor): value for tensor, value in zip(function.inputs, inputs)}
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, kwargs = node.arguments.fill_in(values)
            operation = node.operation
            inner = functional(operation)
            if inner is not None:
                # `base(x, training=False)`: Keras 3 itself lets the outer model's mode go first, so nothing is lost.
                results = walk(inner, _lined_up(inner, args, kwargs), call, (*path, operation.name))
            else:
                results = keras.tree.flatten(call(operation, args, kwargs, path, node.outputs))
            values.update((id(tensor), value) for tensor, value in zip(node.outputs, results))
    return [values[id(tensor)] for tensor in function.outputs]


def _lined_up(function: Any, args: Any, kwargs: Any) -> list[Any]:
    """What a model is called with, in the order of its inputs: a dict goes by the inputs' names, as Keras does it."""
    given, wanted = args[0] if args else kwargs["inputs"], function._inputs_struct
    if isinstance(given, dict) and not isinstance(wanted, dict):
        given = [given[tensor.name] for tensor in keras.tree.flatten(wanted)]
    return keras.tree.flatten(given)
