"""The detector on keras.applications' MobileNetV2, for transfer from ImageNet: 806 MMACs at 320x320, a teacher for the
small ones. It is not for the device: its ReLU6 and depthwise convolutions are refused by the export."""

from typing import Any

import keras

from jetson.errors import BadInput, JetmaskError
from pipeline.config import IMAGENET
from pipeline.models.batchnorm import FusedBatchNorm

FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"  # their name in ~/.keras/models
TAPS = ("block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "out_relu")  # last maps of each stride
NECK = (32, 40, 48, 64)
HEADS = ((32,), (40, 40), (48, 48), (64, 64))
STEM = "Conv1"


def body() -> tuple[Any, Any]:
    """(input, feature maps at strides 4, 8, 16, 32) with random weights; the input is raw 0..255 BGR."""
    image = keras.Input((None, None, 3), name="image")
    plain = _application(None, keras.layers.Rescaling(1 / 127.5, -1.0, name="rescale")(image))

    def own(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer.__class__.from_config(layer.get_config())
        # Keras' momentum of 0.999 is for a million images: what this network says on few would lag behind its weights.
        return FusedBatchNorm(momentum=0.97, epsilon=layer.epsilon, name=layer.name)

    taps = [plain.get_layer(name).output for name in TAPS]
    features = keras.models.clone_model(keras.Model(image, taps), clone_function=own)
    return features.inputs[0], features.outputs


def transfer(net: Any, weights: str = IMAGENET) -> Any:
    """Copy ImageNet weights into a detector of `body`; its neck and heads stay as they are. Returns the detector.

    weights: "imagenet" (downloaded by Keras, or taken from ~/.keras/models), or the path of that file. The first
    kernel's channels are turned round, since ours are BGR and theirs RGB. BadInput for a file that does not fit,
    JetmaskError where there is no network.
    """
    try:
        source = _application(weights)
    except (ValueError, KeyError, OSError) as error:  # h5py raises OSError
        raise BadInput(
            f"not weights of MobileNetV2: {str(error).splitlines()[0]}",
            where=weights,
            expected=f"keras.applications' {FILE}",
            remedy="download it again",
        ) from error
    except Exception as error:  # Keras says "URL fetch failure" in a plain Exception
        raise JetmaskError(
            f"ImageNet weights cannot be downloaded: {str(error).splitlines()[0]}",
            where="model.init=imagenet",
            expected=f"a network, or {FILE} in ~/.keras/models",
            remedy="fetch that file from keras.io's storage elsewhere and name it: --set model.init=FILE.h5",
        ) from error
    names = {layer.name for layer in net.layers}
    for layer in source.layers:
        if layer.weights and layer.name in names:
            values = layer.get_weights()
            if layer.name == STEM:
                values[0] = values[0][:, :, ::-1]
            net.get_layer(layer.name).set_weights(values)
    return net


def _application(weights: str | None, image: Any = None) -> Any:
    return keras.applications.MobileNetV2(
        input_shape=(None, None, 3), include_top=False, weights=weights, input_tensor=image
    )
