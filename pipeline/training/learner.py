"""What a training step runs: the network together with its loss."""

from typing import Any

import keras

from pipeline.training.losses import detection_loss


class Learner(keras.Model):
    """The network with the detector's loss: what Keras' `train_on_batch` takes. y: {"boxes", "labels", "ignore"}, as
    pipeline/training/dataset.py gives them."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.cls_loss, self.box_loss = keras.metrics.Mean("cls_loss"), keras.metrics.Mean("box_loss")

    def call(self, x: Any, training: Any = None) -> Any:
        return self.net(x, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: Any = True
    ) -> Any:
        cls, box = detection_loss(y_pred, y["boxes"], y["labels"], y["ignore"])
        self.cls_loss.update_state(cls)
        self.box_loss.update_state(box)
        return cls + box
