"""What the pruning tests share: the plain oracle, weights that hide nothing, and graphs drawn at random."""

import keras
import numpy as np
from keras import layers

from pipeline.models.functional import walk
from pipeline.pruning.channels import Channels
from pipeline.pruning.pruner import keep_mask


def shake(model, seed=0):
    """Random values for what starts as 0 or 1 (biases, batch statistics): with those a wrong slice would not show."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        name = variable.name
        if name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.6, 1.4, variable.shape))
        elif name in ("beta", "bias", "moving_mean", "alpha"):
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


def zeroed(model, plan, x):
    """Outputs of the unpruned model when every dropped channel is multiplied by 0 behind every layer."""
    channels = Channels(model)
    keep = keep_mask(channels, plan)

    def call(operation, args, kwargs, path, outputs):
        result = operation(*args, **kwargs)
        ids = channels.records[id(operation)].carries
        return result if ids is None or keep[ids].all() else result * keep[ids].astype(np.float32)

    return [np.asarray(y) for y in walk(channels.graph, keras.tree.flatten(x), call)]


def outputs(model, x):
    return [np.asarray(y) for y in keras.tree.flatten(model(x, training=False))]


def difference(ours, theirs):
    """Largest difference of two lists of outputs, as a share of the largest value of each."""
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(b).max())) for a, b in zip(ours, theirs))


def drop_at_random(model, rng, share=0.4):
    """A plan that drops random channels of every group that may lose some."""
    plan = {}
    for group in Channels(model).groups:
        if not group.fixed and group.size > 1:
            count = max(1, int(round(group.size * (1 - share * rng.uniform(0.5, 1.5)))))
            plan[group.name] = sorted(rng.choice(group.size, count, replace=False).tolist())
    return plan


def drawn_graph(seed):
    """A small random network of 8x8 maps: residuals, concatenations, depthwise and grouped convolutions, gates, layers
    and models used twice, several heads. Now and then a layer that the pruner must leave alone."""
    rng = np.random.default_rng(seed)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(_width(rng), 3, padding="same", name="first")(image)
    maps = [x]
    for _ in range(rng.integers(3, 7)):
        x = BLOCKS[rng.integers(len(BLOCKS))](x, maps, rng)
        maps.append(x)
    if rng.random() < 0.05:
        x = layers.LayerNormalization()(x)
    heads = []
    for number in range(rng.integers(1, 4)):
        y = x if number == 0 else maps[rng.integers(len(maps))]
        if rng.random() < 0.5:
            y = layers.Conv2D(_width(rng), 1, activation="relu")(y)
        kind = rng.integers(3)
        if kind == 0:
            y = layers.GlobalAveragePooling2D()(y)
            y = layers.Dense(_width(rng), activation="relu")(y)
        elif kind == 1:
            y = layers.Dense(_width(rng), activation="tanh")(layers.Flatten()(y))
        heads.append(layers.Dense(3, activation="softmax" if rng.random() < 0.3 else None)(y))
    return shake(keras.Model(image, heads if len(heads) > 1 else heads[0]), seed)


def _width(rng):
    return int(rng.choice([4, 6, 8, 12]))


def _same_as(x, y, rng):
    """y brought to the channels of x."""
    return y if y.shape[-1] == x.shape[-1] and rng.random() < 0.7 else layers.Conv2D(x.shape[-1], 1)(y)


def _plain(x, maps, rng):
    x = layers.Conv2D(_width(rng), 3, padding="same", use_bias=bool(rng.integers(2)))(x)
    if rng.random() < 0.7:
        x = layers.BatchNormalization(scale=bool(rng.integers(2)), center=bool(rng.integers(2)))(x)
    return layers.Activation(str(rng.choice(["relu", "swish", "sigmoid", "softplus"])))(x)


def _residual(x, maps, rng):
    y = _same_as(x, _plain(x, maps, rng), rng)
    if rng.random() < 0.3:
        return x + y
    merge = [layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum][rng.integers(5)]
    return merge()([x, y])


def _far(x, maps, rng):
    return layers.Add()([x, _same_as(x, maps[rng.integers(len(maps))], rng)])


def _concat(x, maps, rng):
    others = [maps[rng.integers(len(maps))] for _ in range(rng.integers(1, 3))]
    return layers.Concatenate()([x, *others])


def _dense_block(x, maps, rng):
    for _ in range(2):
        y = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, y])
    return x


def _joined_concats(x, maps, rng):
    """Two concatenations with other borders, added: channels are tied across offsets."""
    a, b = layers.Conv2D(6, 1)(x), layers.Conv2D(4, 1)(x)
    c, d = layers.Conv2D(4, 1)(x), layers.Conv2D(6, 1)(x)
    return layers.Add()([layers.Concatenate()([a, b]), layers.Concatenate()([c, d])])


def _depthwise(x, maps, rng):
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def _grouped(x, maps, rng):
    x = layers.Conv2D(8, 1)(x)
    groups = int(rng.choice([2, 4, 8]))
    return layers.Conv2D(8 * int(rng.integers(1, 3)), 3, padding="same", groups=groups)(x)


def _separable(x, maps, rng):
    return layers.SeparableConv2D(_width(rng), 3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(x)


def _gate(x, maps, rng):
    count = x.shape[-1]
    y = layers.GlobalAveragePooling2D()(x)
    y = layers.Reshape((1, 1, count))(y) if rng.random() < 0.5 else layers.Reshape((1, 1, -1))(y)
    y = layers.Conv2D(4, 1, activation="relu")(y)
    return layers.Multiply()([x, layers.Conv2D(count, 1, activation="sigmoid")(y)])


def _down_up(x, maps, rng):
    y = layers.MaxPooling2D()(x) if rng.random() < 0.5 else layers.AveragePooling2D(2)(x)
    if rng.random() < 0.5:
        return layers.Conv2DTranspose(_width(rng), 2, strides=2)(y)
    return layers.UpSampling2D()(y)


def _shared(x, maps, rng):
    """One convolution on two maps, and one batch normalisation on both results."""
    conv, norm = layers.Conv2D(_width(rng), 3, padding="same"), layers.BatchNormalization()
    other = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(x.shape[-1], 1)(maps[rng.integers(len(maps))]))
    return layers.Concatenate()([norm(conv(x)), norm(conv(other))])


def _inner_model(x, maps, rng):
    """A model as a layer, used twice."""
    inside = keras.Input(x.shape[1:])
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(_width(rng), 1)(inside)))
    model = keras.Model(inside, layers.Conv2D(x.shape[-1], 1)(y))
    return layers.Add()([model(model(x)), x])


BLOCKS = (
    _plain,
    _residual,
    _far,
    _concat,
    _dense_block,
    _joined_concats,
    _depthwise,
    _grouped,
    _separable,
    _gate,
    _down_up,
    _shared,
    _inner_model,
)
