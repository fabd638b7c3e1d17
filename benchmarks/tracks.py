"""Persons counted and class flicker on a clip with known boxes, with the vote over a track's life and without it.

    python -m benchmarks.tracks --bundle jetson/models --clip CLIP.mp4 --truth CLIP.json

Truth: one stay of one face in the clip is a person; faces under 16 pixels are left out of it. Without the vote, each
detection over the threshold starts a person unless it overlaps one of the frame before, and its class is that of the
frame. The count's error is against the persons that the detector saw at all: the rest is its recall, not the tracker's
matter. Rows are appended to benchmarks/results/tracks.csv.
"""

import argparse
import csv
import json
import os
from datetime import date

import cv2
import numpy as np

from jetson.bundle import manifest
from jetson.inference.detector import Faces, open_detector
from jetson.tracking import tracker as track
from jetson.vision import boxes

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "tracks.csv")
FIELDS = [
    "date",
    "bundle",
    "variant",
    "model_sha256",
    "clip",
    "frames",
    "persons_true",
    "persons_seen",
    "method",
    "persons",
    "count_error",
    "class_changes",
    "class_changes_per_person_minute",
]
SMALLEST_PX = 16


def truth_persons(frames: list[dict], found: list[Faces], score: float) -> tuple[int, int]:
    """(persons in the clip, those of them that the detector saw at least once).

    A person is a stay of a face: boxes of frame after frame, linked by IoU; with another `image` everybody is new. A
    frame is {"image", "boxes": [[category, x, y, w, h], …]}.
    """
    live = np.zeros((0, 4))
    numbers: list[int] = []
    image, persons = None, 0
    seen: set[int] = set()
    for frame, faces in zip(frames, found, strict=True):
        rows = np.array([row[1:] for row in frame["boxes"] if row[4] >= SMALLEST_PX], float).reshape(-1, 4)
        now = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)
        if frame["image"] != image:
            live, numbers, image = np.zeros((0, 4)), [], frame["image"]
        linked = boxes.iou_matrix(now, live)
        mine = []
        for row in linked:
            if len(row) and row.max() >= 0.3:
                mine.append(numbers[int(row.argmax())])
            else:
                mine.append(persons)
                persons += 1
        hits = boxes.iou_matrix(now, faces.xyxy[faces.confidence >= score])
        seen.update(number for number, row in zip(mine, hits, strict=True) if len(row) and row.max() >= 0.4)
        live, numbers = now, mine
    return persons, len(seen)


def with_vote(found: list[Faces], fps: float, score: float) -> tuple[int, int, float]:
    """(persons, class changes told, seconds of presence) by the runner's tracker."""
    tracker = track.Tracker(score)
    changes, seconds = 0, 0.0
    for number, faces in enumerate(found):
        events = tracker.update(faces.xyxy, faces.scores, number / fps)
        changes += sum(1 for event in events if event.kind == "change")
        seconds += sum(1 for face in tracker.tracks if face.confirmed) / fps
    return tracker.persons, changes, seconds


def without_vote(found: list[Faces], fps: float, score: float) -> tuple[int, int, float]:
    """The same for detections linked from one frame to the next, without memory or vote."""
    persons = changes = 0
    seconds = 0.0
    before, labels = np.zeros((0, 4)), np.zeros(0, int)
    for faces in found:
        sure = faces.confidence >= score
        xyxy, now = faces.xyxy[sure], faces.labels[sure]
        linked = boxes.iou_matrix(xyxy, before)
        for number in range(len(xyxy)):
            best = int(linked[number].argmax()) if len(before) else -1
            if best < 0 or linked[number, best] < 0.3:
                persons += 1
            else:
                changes += int(now[number] != labels[best])
        seconds += len(xyxy) / fps
        before, labels = xyxy, now
    return persons, changes, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="jetson/models")
    parser.add_argument("--variant")
    parser.add_argument("--clip", required=True)
    parser.add_argument("--truth", required=True, help="JSON: frames with image and boxes")
    parser.add_argument("--out", default=OUT)
    args = parser.parse_args()
    contents = manifest.load(args.bundle)
    variant = contents.variant(args.variant)
    with open(args.truth) as file:
        truth = json.load(file)["frames"]
    capture = cv2.VideoCapture(args.clip)
    fps = capture.get(cv2.CAP_PROP_FPS)
    found = []
    with open_detector(args.bundle, args.variant, "onnxruntime") as detector:
        while True:
            good, frame = capture.read()
            if not good:
                break
            found.append(detector.detect(frame, track.LOW_SCORE))
    true, seen = truth_persons(truth, found, contents.decode["score"])
    rows = []
    for method, count in (("vote over the track", with_vote), ("frame by frame", without_vote)):
        persons, changes, seconds = count(found, fps, contents.decode["score"])
        rows.append(
            {
                "date": date.today().isoformat(),
                "bundle": contents.name,
                "variant": variant.name,
                "model_sha256": variant.sha256[:12],
                "clip": os.path.basename(args.clip),
                "frames": len(found),
                "persons_true": true,
                "persons_seen": seen,
                "method": method,
                "persons": persons,
                "count_error": persons - seen,
                "class_changes": changes,
                "class_changes_per_person_minute": round(60 * changes / seconds, 2) if seconds else "",
            }
        )
    fresh = not os.path.exists(args.out)
    with open(args.out, "a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(
            "{method}: {persons} persons ({persons_true} true, {persons_seen} of them seen), {class_changes} class "
            "changes".format(**row)
        )


if __name__ == "__main__":
    main()
