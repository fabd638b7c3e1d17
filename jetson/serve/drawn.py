"""Where lines and zones that were drawn on the page are kept: in the file that the service was started with."""

import threading
from typing import Any, Dict, List, Optional

from jetson.config import edit
from jetson.inference.runner import Runner, View
from jetson.serve.settings import Settings
from jetson.tracking import zonefile
from jetson.web.marks import Saver


def saver_for(settings: Settings, runner: Runner, changed: threading.Event) -> Optional[Saver]:
    """What writes them and says by `changed` that the file is to be read again; None: there is no file."""
    config, path = settings.config, settings.zones

    def into_config(view: View, wanted: List[Dict[str, Any]]) -> None:
        assert config is not None
        edit.save_zones(config, view.name, wanted)
        changed.set()

    def into_zones(view: View, wanted: List[Dict[str, Any]]) -> None:
        assert path is not None
        zonefile.save(path, view.position, wanted, len(runner.views))
        changed.set()

    if config:
        return Saver(into_config, "config")
    return Saver(into_zones, "zones") if path else None
