"""Assignment of truth to cells, and the losses.

The assigner is task-aligned (TOOD, arXiv:2108.07755) over few candidates: the 3x3 cells round a box's centre on the
levels that fit its size; a face's best cells by p^0.5 * IoU^4 are positive, as many as the sum of their IoUs says
(the dynamic k of SimOTA, arXiv:2107.08430). Working on G x 36 candidates instead of G x all cells keeps the assigner
a small part of a training step on a CPU. The class loss is the quality focal loss (arXiv:2006.04388), the box loss
GIoU (arXiv:1902.09630).
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from pipeline.models.detector import MAX_LOG_DISTANCE, STRIDES

# sqrt(width * height) in input pixels for which a level competes; neighbours overlap so that no size sits on an edge.
# A face goes to a coarser level as soon as it is one or two cells wide: there are the channels that tell its class.
SIZE_RANGES = {4: (0.0, 20.0), 8: (9.0, 44.0), 16: (26.0, 104.0), 32: (68.0, 1e9)}
AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
CLS_WEIGHT, BOX_WEIGHT = 1.5, 2.0


def flatten(outputs: Sequence[Any]) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """List [cls_4, box_4, cls_8, …] -> logits (B, A, C), log distances (B, A, 4) and the grid sizes [(h, w), …]."""
    grids = [(ops.shape(t)[1], ops.shape(t)[2]) for t in outputs[0::2]]
    batch = ops.shape(outputs[0])[0]

    def join(maps: Sequence[Any]) -> Any:
        return ops.concatenate([ops.reshape(ops.cast(m, "float32"), (batch, -1, m.shape[-1])) for m in maps], axis=1)

    return join(outputs[0::2]), join(outputs[1::2]), grids


def cell_centres(grids: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Centres of all cells in input pixels (A, 2) as x, y and their strides (A,), in the order of `flatten`."""
    centres, strides = [], []
    for (h, w), stride in zip(grids, STRIDES, strict=True):
        y = (ops.cast(ops.arange(h), "float32") + 0.5) * stride
        x = (ops.cast(ops.arange(w), "float32") + 0.5) * stride
        gx, gy = ops.meshgrid(x, y)
        centres.append(ops.stack([ops.reshape(gx, (-1,)), ops.reshape(gy, (-1,))], axis=-1))
        strides.append(ops.ones((h * w,), "float32") * stride)
    return ops.concatenate(centres, axis=0), ops.concatenate(strides, axis=0)


def candidates(boxes: Any, grids: Sequence[tuple[Any, Any]]) -> tuple[Any, Any, Any, Any]:
    """Candidate cells of every truth box.

    boxes: (B, G, 4) xyxy input pixels. Returns cell index (B, G, K) into all cells, its centre (B, G, K, 2), its
    stride (K,) and whether it is a real candidate (B, G, K): in the grid, on a fitting level, its centre in the box
    (a distance can not be negative) or the box's own centre cell.
    """
    cx = (boxes[..., 0] + boxes[..., 2]) / 2
    cy = (boxes[..., 1] + boxes[..., 3]) / 2
    size = ops.sqrt(ops.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 0.0))
    index, centre, good, stride_of = [], [], [], []
    start: Any = 0
    for (h, w), stride in zip(grids, STRIDES, strict=True):
        low, high = SIZE_RANGES[stride]
        fits = ops.logical_and(size >= low, size < high)
        j, i = ops.floor(cx / stride), ops.floor(cy / stride)
        for dy, dx in AROUND:
            x, y = j + dx, i + dy
            px, py = (x + 0.5) * stride, (y + 0.5) * stride
            in_grid = (x >= 0) & (y >= 0) & (x < ops.cast(w, "float32")) & (y < ops.cast(h, "float32"))
            inside = (px > boxes[..., 0]) & (py > boxes[..., 1]) & (px < boxes[..., 2]) & (py < boxes[..., 3])
            if dy == 0 and dx == 0:
                inside = ops.ones_like(inside)
            cell = ops.cast(ops.clip(y, 0, ops.cast(h - 1, "float32")), "int32") * w + ops.cast(
                ops.clip(x, 0, ops.cast(w - 1, "float32")), "int32"
            )
            index.append(cell + start)
            centre.append(ops.stack([px, py], axis=-1))
            good.append(fits & in_grid & inside)
            stride_of.append(float(stride))
        start = start + h * w
    return (
        ops.stack(index, axis=-1),
        ops.stack(centre, axis=-2),
        ops.convert_to_tensor(stride_of),
        ops.stack(good, axis=-1),
    )


def decode(centre: Any, stride: Any, log_distance: Any) -> Any:
    """Boxes xyxy in input pixels from cell centres (…, 2), strides (…,) and log distances (…, 4)."""
    d = ops.exp(ops.clip(log_distance, -MAX_LOG_DISTANCE, MAX_LOG_DISTANCE)) * ops.expand_dims(stride, -1)
    return ops.concatenate([centre - d[..., :2], centre + d[..., 2:]], axis=-1)


def iou_and_giou(a: Any, b: Any) -> tuple[Any, Any]:
    """IoU and GIoU of boxes (…, 4) xyxy, elementwise."""
    overlap = ops.maximum(ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2]), 0.0)
    inter = overlap[..., 0] * overlap[..., 1]
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    union = area_a + area_b - inter + 1e-6
    hull_wh = ops.maximum(a[..., 2:], b[..., 2:]) - ops.minimum(a[..., :2], b[..., :2])
    hull = hull_wh[..., 0] * hull_wh[..., 1] + 1e-6
    iou = inter / union
    return iou, iou - (hull - union) / hull


def assign(align: Any, iou: Any, good: Any, index: Any, cells: Any) -> Any:
    """Which candidates are positive.

    align, iou, good, index: (B, G, K); cells: number of cells A. Every truth takes its k best candidates by
    `align`, k = its IoUs' sum rounded, at least 1; a cell wanted by several goes to the one that aligns best.
    Returns a float mask (B, G, K).
    """
    good_f = ops.cast(good, "float32")
    align = ops.where(good, align, -1.0)
    top_iou, _ = ops.top_k(iou * good_f, 9)
    total = ops.sum(top_iou, axis=-1, keepdims=True)
    # A diverged network's boxes are NaN. What a cast makes of NaN depends on the processor (without AVX-512 it is
    # 2147483647, and TensorFlow ends in an internal error at the gather): the loss itself says that it is NaN.
    k = ops.clip(ops.round(ops.where(total >= 1.0, total, 1.0)), 1.0, 9.0)
    sorted_align, _ = ops.top_k(align, 9)
    place = ops.cast(k, "int32") - 1
    threshold = ops.take_along_axis(sorted_align, place, axis=-1)
    chosen = good & (align >= threshold)
    batch = ops.shape(align)[0]
    offset = ops.reshape(ops.arange(batch), (-1, 1, 1)) * cells
    flat = ops.reshape(index + offset, (-1,))
    wish = ops.reshape(ops.where(chosen, align, -1.0), (-1,))
    best = ops.segment_max(wish, flat, num_segments=batch * cells)
    won = ops.reshape(ops.take(best, flat), ops.shape(align))
    return ops.cast(chosen & (align >= won), "float32")


def detection_loss(outputs: Sequence[Any], boxes: Any, labels: Any, ignore: Any) -> tuple[Any, Any]:
    """Class and box loss of one batch.

    outputs: the model's list; boxes (B, G, 4) xyxy input pixels; labels (B, G) int, -1 for padding;
    ignore (B, I, 4) xyxy regions whose background is not punished (zeros for padding).
    Returns (class loss, box loss), scalars, weighted.
    """
    logits, distances, grids = flatten(outputs)
    batch, cells = ops.shape(logits)[0], ops.shape(logits)[1]
    centres, _ = cell_centres(grids)
    index, centre, stride, good = candidates(boxes, grids)
    good = good & ops.expand_dims(labels >= 0, -1)
    shape = ops.shape(index)
    flat_index = ops.reshape(index, (batch, -1, 1))
    near_distance = ops.reshape(ops.take_along_axis(distances, flat_index, axis=1), (*shape, 4))
    near_logits = ops.reshape(ops.take_along_axis(logits, flat_index, axis=1), (*shape, logits.shape[-1]))
    truth_class = ops.one_hot(ops.maximum(labels, 0), logits.shape[-1], dtype="float32")
    predicted = decode(centre, stride, near_distance)
    iou, giou = iou_and_giou(predicted, ops.expand_dims(boxes, 2))
    p = ops.sigmoid(ops.sum(near_logits * ops.expand_dims(truth_class, 2), axis=-1))
    quality = ops.stop_gradient(ops.clip(iou, 0.0, 1.0))
    align = ops.stop_gradient(ops.sqrt(p)) * quality**4 + 1e-9 * (1 + quality)
    positive = ops.stop_gradient(assign(align, quality, good, index, cells))

    offset = ops.reshape(ops.arange(batch), (-1, 1, 1)) * cells
    target = ops.expand_dims(positive * quality, -1) * ops.expand_dims(truth_class, 2)
    target = ops.segment_max(
        ops.reshape(target, (-1, logits.shape[-1])), ops.reshape(index + offset, (-1,)), num_segments=batch * cells
    )
    target = ops.reshape(ops.maximum(target, 0.0), ops.shape(logits))
    is_positive = ops.cast(ops.max(target, axis=-1, keepdims=True) > 0, "float32")

    x, y = centres[None, None, :, 0], centres[None, None, :, 1]
    inside = (x > ignore[..., 0:1]) & (x < ignore[..., 2:3]) & (y > ignore[..., 1:2]) & (y < ignore[..., 3:4])
    ignored = ops.expand_dims(ops.cast(ops.any(inside, axis=1), "float32"), -1)
    weight = ops.maximum(is_positive, 1.0 - ignored)

    probability = ops.sigmoid(logits)
    cross_entropy = ops.maximum(logits, 0.0) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
    focal = ops.square(target - probability) * cross_entropy * weight
    norm = ops.maximum(ops.sum(positive), 1.0)
    # Small boxes move IoU most and are labelled least exactly: all positives count alike, by quality-free weight.
    box = ops.sum((1.0 - giou) * positive) / norm
    return CLS_WEIGHT * ops.sum(focal) / norm, BOX_WEIGHT * box
