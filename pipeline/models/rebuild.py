"""One layer of a model made anew with fewer channels, and the proof that a layer of a user's own class allows it."""

from typing import Any

import keras
import numpy as np
from keras import layers

from jetson.errors import JetmaskError

AT_HAND = ("activation", "_regularizer", "_constraint", "_initializer")  # entries of a configuration that are objects


def renewed(operation: Any, counts: Any, keep: Any, name: str | None = None) -> Any:
    """A new layer of the same class and settings, with the channel counts that stay.

    counts: {config entry: channel numbers}; keep: (channel numbers,) bool; name: the new layer's, None for its own.
    JetmaskError where its configuration does not make it.
    """
    if type(operation) is layers.Lambda:
        return _lambda(operation, name)
    try:
        config = operation.get_config()
        for key, ids in counts.items():
            left = int(keep[ids].sum())
            if key != "target_shape":
                config[key] = left
            elif config[key][-1] != -1:
                config[key] = (*config[key][:-1], left)
        if "name" in config and name:
            config["name"] = name
        for key, value in config.items():
            # A function that nobody registered is there, but not under its name.
            at_hand = getattr(operation, key, None)
            if (
                isinstance(value, dict)
                and key.endswith(AT_HAND)
                and at_hand is not None
                and not isinstance(at_hand, keras.Layer)
            ):
                config[key] = at_hand
        return type(operation).from_config(config)
    except (TypeError, ValueError, NotImplementedError) as error:
        if not isinstance(operation, keras.Layer):
            return operation  # a bare operation has no weights and no counts: it can serve in both graphs
        raise JetmaskError(
            f"a layer cannot be rebuilt from its configuration: {error}",
            where=f"layer {operation.name!r} ({type(operation).__name__})",
            expected="get_config and from_config that fit each other",
            remedy="add the missing arguments to its get_config",
        ) from error


def _lambda(layer: Any, name: str | None) -> Any:
    """Its function is at hand: nothing has to be read from a file, which Keras rightly refuses to do unasked."""
    return layers.Lambda(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        name=name or layer.name,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )


def copy(record: Any, new: Any, keep: Any) -> None:
    """Give `new` the weights of a record's layer, cut to what stays (keep None: all). JetmaskError where they do not
    fit."""
    old = record.layer
    cuts: dict[int, list[Any]] = {}
    for cut in record.slices:
        cuts.setdefault(id(getattr(old, cut.variable)), []).append(cut)
    if len(old.variables) != len(new.variables):
        raise JetmaskError(
            "a layer has different weights after it is rebuilt",
            where=f"layer {old.name!r}",
            expected=f"{len(old.variables)} variables, not {len(new.variables)}",
        )
    for source, target in zip(old.variables, new.variables):
        if "seed" in str(source.dtype) or source.shape == () and target.shape == ():
            target.assign(source)
            continue
        value = np.asarray(source)
        for cut in cuts.get(id(source), ()):
            if keep is not None and not keep[cut.ids].all():
                value = np.compress(keep[cut.ids], value, axis=cut.axis)
        if tuple(target.shape) != value.shape:
            raise JetmaskError(
                f"a weight of a layer cannot be cut: {source.name!r} has shape {value.shape}, "
                f"and the smaller layer wants {tuple(target.shape)}",
                where=f"layer {old.name!r} ({type(old).__name__})",
                expected="only the weights of its base class",
                remedy="leave the group of this layer out of the plan",
            )
        target.assign(value)
    settle(old, new)


def settle(old: Any, new: Any) -> None:
    """Give `new` what `old`, and the layers in it, know besides their variables: the vocabulary of a lookup, the
    statistics that a Normalization derives from them. JetmaskError with the layer's name where that fails."""
    for layer, heir in zip(old._flatten_layers(), new._flatten_layers()):
        try:
            if (
                isinstance(layer, (layers.StringLookup, layers.IntegerLookup))
                and layer.vocabulary_size() > heir.vocabulary_size()
            ):
                weighted = layer.output_mode == "tf_idf"  # its words go with their weights
                heir.set_vocabulary(
                    layer.get_vocabulary(include_special_tokens=weighted),
                    *([np.asarray(layer.idf_weights)] if weighted else []),
                )
            if isinstance(heir, layers.Normalization):
                heir.finalize_state()
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise JetmaskError(
                f"the state of a layer cannot be copied: {str(error).splitlines()[0]}",
                where=f"layer {layer.name!r} ({type(layer).__name__})",
            ) from error


def cloned(model: Any) -> Any:
    """A copy of a Keras model with its weights and all that its layers know besides."""
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    settle(model, clone)
    return clone


def own(operation: Any) -> bool:
    """Whether it is a layer of a class that is neither Keras' nor ours."""
    return isinstance(operation, keras.Layer) and not type(operation).__module__.startswith(("keras.src.", "pipeline."))


def lost(record: Any, given: Any) -> str | None:
    """Why the layer, made anew with all its channels, does not give what it gives; None where it does, or where it
    does not run on random numbers. given: as for `differs`."""
    rng = np.random.default_rng(0)
    x = keras.tree.map_structure(
        lambda value: (
            rng.normal(
                0, 1, [*(value.shape[0] or 1, *(16 if size is None else size for size in value.shape[1:]))]
            ).astype(np.float32)
            if hasattr(value, "ids")
            else value
        ),
        given,
    )

    def answers(layer: Any) -> list[Any]:
        return [np.asarray(keras.ops.cast(y, "float32")) for y in keras.tree.flatten(layer(*x[0], **x[1]))]

    before = [np.array(np.asarray(variable)) for variable in record.layer.variables]
    try:
        first, again = answers(record.layer), answers(record.layer)
    except Exception:  # a user's own code may raise anything
        return None
    finally:
        for variable, value in zip(record.layer.variables, before):
            variable.assign(value)
    try:
        layer = renewed(record.layer, {}, None)
        # Built as in a model, without numbers: what a layer in it derives from its variables is not there yet.
        args, kwargs = keras.tree.map_structure(
            lambda value: keras.KerasTensor(value.shape) if isinstance(value, np.ndarray) else value, x
        )
        layer(*args, **kwargs)
        copy(record, layer, None)
        ours = answers(layer)
    except Exception as error:
        return str(error).split("\n")[0] or type(error).__name__
    near = 1e-4 if record.layer.compute_dtype == "float32" else 3e-2
    same = all(a.shape == b.shape and np.allclose(a, b, near, near, equal_nan=True) for a, b in zip(ours, first))
    at_random = not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, again))
    return None if same or at_random else "it gives other numbers"


def differs(record: Any, given: Any, keep: Any) -> str | None:
    """Why the layer, made anew with the channels of `keep`, does not give what it gives when the others are silent.

    given: (args, kwargs) with a pipeline.pruning.channel_numbers.Value for each tensor. None where both are the same on
    random numbers (or a layer that draws at random leaves nothing to compare): then its base class tells what it does.
    """
    rng = np.random.default_rng(0)
    silent = any(cut.reads for cut in record.slices)  # what no weight reads is 0; what passes through may be anything

    def numbers(value: Any) -> Any:
        if not hasattr(value, "ids"):
            return value
        x = rng.normal(0, 1, [1, *(8 if size is None else size for size in value.shape[1:])]).astype(np.float32)
        return x * keep[value.ids].astype(np.float32) if silent else x

    def cut(value: Any, x: Any) -> Any:
        return np.compress(keep[value.ids], x, axis=-1) if hasattr(value, "ids") else value

    whole = keras.tree.map_structure(numbers, given)
    small = keras.tree.map_structure(cut, given, whole)
    # Called with training=True it may learn from the random numbers.
    before = [np.array(np.asarray(variable)) for variable in record.layer.variables]
    try:
        layer = renewed(record.layer, record.counts, keep)
        ours = layer(*small[0], **small[1])
        copy(record, layer, keep)
        ours, first, again = (
            np.asarray(keras.ops.cast(run(*x[0], **x[1]), "float32"))
            for run, x in ((layer, small), (record.layer, whole), (record.layer, whole))
        )
    except Exception as error:  # a user's own code may raise anything
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    finally:
        for variable, value in zip(record.layer.variables, before):
            variable.assign(value)
    wanted = np.compress(keep[record.carries], first, axis=-1)
    near = 1e-4 if record.layer.compute_dtype == "float32" else 3e-2
    if ours.shape == wanted.shape and (not np.array_equal(first, again) or np.allclose(ours, wanted, near, near)):
        return None
    return "its channels are not independent of one another"
