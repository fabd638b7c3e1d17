"""Our subclasses on NVIDIA's real module (see tensorrt_surface.sh): made, their callbacks called, names compared."""

import json
import os
import sys

import tensorrt as trt

from jetson.engine import calibration, tensorrt_module, tensorrt_network

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    log = tensorrt_module.log_for(trt)
    log.log(trt.ILogger.Severity.ERROR, "hello")
    assert log.errors() == ["hello"], log.errors()
    assert isinstance(log, trt.ILogger)

    cache = calibration.cache_of({"image": 255.0}, trt.__version__)
    for algorithm, base in (
        ("EntropyCalibration2", trt.IInt8EntropyCalibrator2),
        ("MinMaxCalibration", trt.IInt8MinMaxCalibrator),
    ):
        calibrator = calibration.make_calibrator(trt, algorithm, cache)
        assert isinstance(calibrator, base)
        assert calibrator.get_batch_size() == 1
        assert bytes(calibrator.read_calibration_cache()).startswith(b"TRT-8503-EntropyCalibration2\n")
        assert calibrator.get_batch(["image"]) is None
        calibrator.write_calibration_cache(memoryview(b"TRT-8503-EntropyCalibration2\nimage: 0\n"))
        print(algorithm, "subclassed:", calibrator.get_algorithm())

    class Facts:
        half, quantized = False, False

    assert tensorrt_network.is_typed(trt, Facts()) is False

    with open(os.path.join(HERE, "tensorrt_surface.json")) as file:
        recorded = json.load(file)["8.5.3"]
    checked = 0
    for owner, members in recorded.items():
        real = getattr(trt, owner)
        for member in members.split():
            assert hasattr(real, member.split(":")[0]), (owner, member)
            checked += 1
    print(
        "TensorRT {} under Python {}: {} recorded names are there".format(
            trt.__version__, sys.version.split()[0], checked
        )
    )


if __name__ == "__main__":
    main()
