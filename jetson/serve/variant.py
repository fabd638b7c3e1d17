"""Which variant a runner begins with: the one that was named, the bundle's default, or the one that `auto` finds."""

from typing import Callable, Optional, Sequence, Tuple

from jetson.adapt import auto, tradeoff
from jetson.bundle.manifest import Manifest, Variant
from jetson.capture.source import Source
from jetson.inference.detector import Detector
from jetson.monitor.watchdog import say
from jetson.serve.settings import Settings


def begin(
    settings: Settings,
    contents: Manifest,
    sources: Sequence[Source],
    open_variant: Callable[[Variant, Optional[str]], Detector],
) -> Tuple[Variant, Detector]:
    """The variant and its engine, open. JetmaskError where it is not in the bundle or cannot be opened."""
    if settings.variant != auto.AUTO:
        variant = contents.variant(settings.variant)
        return variant, open_variant(variant, None)
    usual = contents.variant(None)
    entries = tradeoff.choose(contents, "auto", settings.runtime, usual, tradeoff.engine_is_cached(contents))
    if len(entries) < 2:  # nothing to choose among; what keeps it from being opened is told by the engine itself
        return usual, open_variant(usual, None)
    fps = auto.wanted_fps([source.fps for source in sources])
    found = auto.choose(contents, entries, open_variant, fps, settings.threads, auto.default_path())
    say(f"variant {found.variant.name}: {found.reason}")
    return found.variant, found.detector
