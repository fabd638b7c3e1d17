"""A camera that is watched: its settings and its address."""

from typing import NamedTuple

from jetson.capture.source import Source
from jetson.config.settings import CameraSettings


class Watched(NamedTuple):
    """A camera of a file or a command line; `source` has its credentials filled in."""

    settings: CameraSettings
    source: Source
