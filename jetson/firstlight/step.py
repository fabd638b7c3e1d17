"""What a step of first-light is, and what the steps tell each other."""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from jetson.bundle.manifest import Manifest, Variant

PASS, FAIL, SKIPPED = "pass", "fail", "skipped"
Say = Callable[[str], None]


class Settings(NamedTuple):
    """What is tried. `sources`: cameras; none: those that are found. `variants`: to build, none: two are chosen.

    `minutes`: of load. `predictions`: {variant: {"latency_ms", "low_ms", "high_ms"}} of the host. `engines`: the cache
    folder. `rebuild`: build although the cache has the engine. `only`: names of steps, none: all. `root`: where the
    machine's own files are read from.
    """

    bundle: str
    sources: Tuple[str, ...] = ()
    variants: Tuple[str, ...] = ()
    minutes: float = 10.0
    predictions: Dict[str, Any] = {}
    engines: str = ""
    rebuild: bool = False
    only: Tuple[str, ...] = ()
    root: str = "/"


class Outcome(NamedTuple):
    """How a step ended. `what`: in words, the reason where it failed or was skipped; `measured`: for the report."""

    status: str
    what: str
    measured: Dict[str, Any] = {}


class Known:
    """What the steps before have found out."""

    def __init__(self, contents: Manifest) -> None:
        self.contents = contents
        self.camera: Optional[str] = None  # a source that has given pictures
        self.built: List[Variant] = []  # engines that are there

    @property
    def best(self) -> Tuple[Variant, Optional[str]]:
        """The variant to go on with and its runtime: the last engine that was built, else the default on the CPU."""
        if self.built:
            return self.built[-1], "tensorrt"
        return self.contents.variant(None), None

    def source(self) -> str:
        """The camera that works, else drawn scenes."""
        return self.camera or "synthetic://?size=1280x720&fps=30"


Run = Callable[[Settings, Known, Say], Outcome]
