"""Learning from a teacher: a network also learns to answer as a better one does, at every cell."""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from pipeline.models.batchnorm import folded
from pipeline.training.learner import Learner
from pipeline.training.losses import flatten

CLS_WEIGHT, BOX_WEIGHT = 1.0, 1.0
SMOOTH = 0.1  # of a log distance: under it the box term is quadratic


class Distilled(Learner):
    """The detector's loss plus the distance to a teacher's outputs."""

    def __init__(self, net: Any, teacher: Any, weight: float = 1.0) -> None:
        super().__init__(net)
        teacher.trainable = False
        self.teacher, self.weight = teacher, weight

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: Any = True
    ) -> Any:
        own = super().compute_loss(x, y, y_pred, sample_weight, training)
        return own + self.weight * distance(y_pred, self.teacher(x, training=False))


def distance(student: Sequence[Any], teacher: Sequence[Any]) -> Any:
    """How far the student's outputs are from the teacher's, a scalar.

    Classes: the quality focal loss (arXiv:2006.04388) with the teacher's probabilities as the target; boxes: smooth L1
    of the log distances, weighted by the teacher's best probability. Both over the teacher's sum of best
    probabilities, which is about the number of its positive cells.
    """
    logits, boxes, _ = flatten(student)
    target_logits, target_boxes, _ = flatten([ops.stop_gradient(t) for t in teacher])
    target = ops.sigmoid(target_logits)
    best = ops.max(target, axis=-1)
    norm = ops.maximum(ops.sum(best), 1.0)
    cross_entropy = ops.maximum(logits, 0.0) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
    # The entropy of the target is taken off, so that equal outputs have distance 0.
    entropy = ops.maximum(target_logits, 0.0) - target_logits * target + ops.log1p(ops.exp(-ops.abs(target_logits)))
    focal = ops.square(target - ops.sigmoid(logits)) * (cross_entropy - entropy)
    off = ops.abs(boxes - target_boxes)
    smooth = ops.where(off < SMOOTH, 0.5 * ops.square(off) / SMOOTH, off - 0.5 * SMOOTH)
    box = ops.mean(smooth, axis=-1) * best
    return (CLS_WEIGHT * ops.sum(focal) + BOX_WEIGHT * ops.sum(box)) / norm


def with_teacher(teacher: Any, weight: float = 1.0) -> Callable[[Any], Distilled]:
    """What `pipeline.training.train.fit` takes as `learner`: the network with a loss that has a copy of it in it."""
    copy = folded(teacher)
    return lambda net: Distilled(net, copy, weight)
