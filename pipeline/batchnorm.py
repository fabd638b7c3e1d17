"""Batch normalisation as the detectors use it."""
import keras
from keras import layers


@keras.saving.register_keras_serializable("jetmask")
class FusedBatchNorm(layers.BatchNormalization):
    """Batch normalisation whose training step is TensorFlow's fused kernel.

    Keras composes it from many small operations; on a CPU the fused kernel makes a whole training step about a third
    faster. Elsewhere, and at inference, it is exactly `keras.layers.BatchNormalization`.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and keras.backend.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        gamma, beta = tf.cast(self.gamma, "float32"), tf.cast(self.beta, "float32")
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=gamma, offset=beta, mean=[], variance=[], epsilon=self.epsilon, is_training=True)
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
        self.moving_variance.assign(self.moving_variance * keep + variance * (1 - keep))
        return y
