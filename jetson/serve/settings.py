"""What `serve` was asked for, as one typed object; from the command line (jetson.serve.cli) or a file (.fromfile)."""

from typing import NamedTuple, Optional, Sequence, Tuple

from jetson.alerts.settings import AlertSettings
from jetson.config import settings as configuration


class Settings(NamedTuple):
    """The verb's options, or what its file says, checked. Paths are None where nothing was asked for."""

    bundle: str
    sources: Sequence[str] = ()  # addresses, as they were given
    variant: Optional[str] = None
    runtime: Optional[str] = None
    threads: int = 0  # of one inference; 0: cores - 1
    score: Optional[float] = None  # None: the manifest's
    size: Optional[Tuple[int, int]] = None
    fps: Optional[float] = None
    once: bool = False
    every_frame: bool = False
    wait_for_source: bool = False
    host: str = "127.0.0.1"
    port: int = 8080
    credentials: Optional[str] = None
    token_file: Optional[str] = None
    users: Optional[str] = None
    frame_ancestors: Sequence[str] = ()
    insecure: bool = False
    allow_host: Sequence[str] = ()
    stream_fps: float = 15.0
    blur_faces: bool = False
    tradeoff: str = "auto"
    budget: float = 5.0  # percent of the time
    eval: Optional[str] = None
    governor: Optional[str] = None
    events: Optional[str] = None
    history: Optional[str] = None  # None: events.sqlite3 in $JETMASK_STATE, if that is set; off
    history_days: float = 30.0
    history_mb: float = 200.0
    zones: Optional[str] = None
    drift: Optional[str] = None
    drift_days: float = 7.0
    keep_crops: bool = False
    ready_file: Optional[str] = None
    config: Optional[str] = None  # the file that says it all; its cameras come and go while it runs
    file: Optional[configuration.Settings] = None  # what it said at the start
    alerts: AlertSettings = AlertSettings()
    kept: configuration.EventSettings = configuration.EventSettings()  # pictures and clips

    @property
    def crops(self) -> bool:
        """Whether faces are kept: with blurring on, no sharp one is handed out."""
        return self.keep_crops and not self.blur_faces
