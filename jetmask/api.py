"""The functions and classes of `import jetmask`."""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from jetson.bundle import manifest
from jetson.engine import available
from jetson.errors import BadInput
from jetson.inference.detector import Detector as _Detector
from jetson.inference.detector import Faces, open_detector
from pipeline.paths import SHIPPED

if TYPE_CHECKING:
    import keras

    from pipeline.config import Config
    from pipeline.export.onnx import Exported

Path = str | os.PathLike[str]


class Bundle:
    """A bundle: the models, their variants and what was measured of each.

    folder: the bundle's (default: the one that ships with jetmask). BadInput where it is none or is not whole.
    """

    def __init__(self, folder: Path = SHIPPED) -> None:
        self.folder = os.fspath(folder)
        self.manifest = manifest.load(self.folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of `Faces.scores`' columns."""
        return tuple(self.manifest.classes)

    @property
    def variants(self) -> dict[str, manifest.Variant]:
        """{name: its input size, precision, runtimes, multiply-adds and measured AP}."""
        return {variant.name: variant for variant in self.manifest.variants}

    def usable(self) -> list[str]:
        """The names of the variants that this machine can run."""
        reasons = available()
        return [name for name, v in self.variants.items() if any(reasons[r] is None for r in v.runtimes)]

    def problems(self) -> list[str]:
        """What is wrong with its files (missing, changed, not listed); empty when all is right."""
        return manifest.check(self.folder)

    def detector(self, variant: str | None = None, runtime: str | None = None, threads: int = 1) -> "Detector":
        """A detector of one of its variants (default: the bundle's default one)."""
        return Detector(self.folder, variant, runtime, threads)


class Detector:
    """Finds faces in pictures, by the same code that runs on the device. Use it in a `with`, or `close` it.

    bundle: a bundle's folder (default: the one that ships). variant: its name (default: the bundle's default one).
    runtime: "onnxruntime", "litert" or "tensorrt" (default: the variant's first that is here). threads: CPU threads of
    one inference. UsageError for a name that is none, DeviceMismatch where no runtime can run it here.
    """

    def __init__(
        self, bundle: Path = SHIPPED, variant: str | None = None, runtime: str | None = None, threads: int = 1
    ) -> None:
        folder = os.fspath(bundle)
        contents = manifest.load(folder)
        self.classes = tuple(contents.classes)
        self.variant = contents.variant(variant).name
        self._detector: _Detector = open_detector(folder, self.variant, runtime, threads)

    def detect(self, image: np.ndarray | Path, score: float | None = None) -> Faces:
        """The faces of one picture, best first.

        image: uint8 (h, w, 3) BGR, as cv2 reads it, or a file. score: from which faces are given (default: the
        bundle's). Faces has `xyxy` float32 (N, 4) in pixels, `scores` float32 (N, classes), `labels` int (N,) and
        `confidence` float32 (N,). BadInput for a file that cannot be read or an array of another shape.
        """
        frame = image if isinstance(image, np.ndarray) else _read(image)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise BadInput(f"the picture is {frame.dtype} {frame.shape}", None, "uint8 (height, width, 3), BGR")
        return self._detector.detect(frame, score)

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds of the last call: preprocess_ms, infer_ms, postprocess_ms."""
        return dict(self._detector.timings)

    def close(self) -> None:
        """Free the engine."""
        self._detector.close()

    def __enter__(self) -> "Detector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(path: Path) -> np.ndarray:
    try:
        data = np.fromfile(os.fspath(path), np.uint8)
    except OSError as error:
        raise BadInput(f"the picture cannot be read: {error.strerror}", path) from None
    frame = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if frame is None:
        raise BadInput("the picture cannot be decoded", path, "a JPEG, PNG, BMP, WebP or TIFF")
    return frame


def detect(
    paths: Path | Iterable[Path],
    out: Path,
    bundle: Path = SHIPPED,
    variant: str | None = None,
    runtime: str | None = None,
    score: float | None = None,
    jobs: int | None = None,
    ray: str | None = None,
    **what: bool,
) -> list[dict[str, Any]]:
    """What `jetmask detect` does: faces on photographs and videos, into the folder `out`; its lines.

    jobs: processes (default: one a core). ray: the address of a Ray cluster ("local": one on this machine). what:
    pictures, txt, crops, blur, as True or False. An interrupted call goes on where it was. In a script, call it below
    `if __name__ == "__main__":`, for it starts processes.
    """
    from pipeline.cluster import Cluster
    from pipeline.detect import detect as detection
    from pipeline.detect import inputs, results
    from pipeline.detect.worker import Settings
    from pipeline.evaluation.evaluate import most_accurate

    contents = manifest.load(os.fspath(bundle))
    if variant is None:
        chosen, runtime = most_accurate(contents, runtime)
    else:
        chosen = contents.variant(variant)
        reasons = available()
        runtime = runtime or next((name for name in chosen.runtimes if reasons[name] is None), chosen.runtimes[0])
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    settings = Settings(os.fspath(bundle), chosen.name, runtime, os.fspath(out), score, **what)
    items = inputs.find([os.fspath(path) for path in given], settings.out)
    with Cluster(ray, jobs) if ray else contextlib.nullcontext() as cluster:
        detection.run(items, settings, jobs or os.cpu_count() or 1, cluster)
    return list(results.read_lines(os.path.join(settings.out, results.LINES)))


def evaluate(
    data: Path,
    bundle: Path = SHIPPED,
    variant: str | None = None,
    runtime: str | None = None,
    ray: str | None = None,
) -> dict[str, Any]:
    """AP of a bundle's variant (default: the most accurate that runs here) on a labelled folder.

    ray: the address of a Ray cluster to spread it over ("local": one on this machine).

    data: a folder with images/ and annotations.json. The result holds "map50" (two-class), "per_class", "by_size",
    "counts" and "latency_ms"; `jetmask evaluate --json` prints the same.
    """
    from jetson.evaluation import average_precision
    from pipeline.cluster import Cluster
    from pipeline.evaluation.evaluate import measure

    truths = average_precision.load_split(os.fspath(data), manifest.load(os.fspath(bundle)).classes)
    if not truths:
        raise BadInput("there is no image to evaluate on", os.path.join(data, "annotations.json"))
    with Cluster(ray) if ray else contextlib.nullcontext() as cluster:
        return measure(os.fspath(bundle), truths, variant, runtime, cluster=cluster).result


def load_config(preset: Path | None = None, overrides: Sequence[str] = ()) -> "Config":
    """Settings of a training: a YAML file or the name of a preset, and "key=value" overrides ("train.epochs=5")."""
    from pipeline import config

    return config.load(os.fspath(preset) if preset is not None else None, list(overrides))


def train(
    data: Path,
    out: Path,
    config: "Config | Path | None" = None,
    overrides: Sequence[str] = (),
    callbacks: Sequence["keras.callbacks.Callback"] = (),
    resume: bool = False,
) -> dict[str, Any]:
    """Train a detector on the split folders of `data` into the run folder `out`.

    config: what `load_config` gives, or what it takes; default: the shipped `s` is fine-tuned, for as long as the
    photographs are worth (docs/train.md). callbacks: further Keras callbacks (TensorBoard, MLflow, W&B).
    The result holds "map50" (val, the best), "best" and "last" (.keras files) and "rows" (the log, one an epoch).
    """
    from pipeline.config import Config
    from pipeline.training import recipe
    from pipeline.training import train as training

    if config is None:
        settings = recipe.config(list(overrides), os.fspath(data))
    else:
        settings = config if isinstance(config, Config) else load_config(config, overrides)
    settings.data.root = os.fspath(data)
    found: dict[str, Any] = training.fit(settings, os.fspath(out), resume=resume, callbacks=tuple(callbacks))
    return found


def prune(model: "keras.Model", macs_ratio: float, input_wh: tuple[int, int] = (320, 320)) -> "keras.Model":
    """A smaller copy of a Keras functional model: channels are cut out until `macs_ratio` (0 to 1) of the
    multiply-adds at `input_wh` are left, those with the smallest weights first (l1). Fine-tune it afterwards."""
    from pipeline.pruning import pruner

    return pruner.prune(model, pruner.plan_global(model, macs_ratio, "l1", input_wh))


def export(model: "keras.Model", path: Path, input_whs: Sequence[tuple[int, int]] | None = None) -> "Exported":
    """Write a detector as one ONNX file for all input sizes, and prove it equal to Keras.

    input_whs: (width, height) at which both are run, multiples of 32, two or more. JetmaskError where they differ.
    """
    from pipeline.export import onnx

    wanted: Mapping[str, Any] = {} if input_whs is None else {"input_whs": input_whs}
    return onnx.export(model, os.fspath(path), **wanted)
