"""The settings of one deployment, as `jetmask deploy` or a device's entry in fleet.yaml gives them."""

from dataclasses import dataclass

from pipeline.deploy import layout


@dataclass(frozen=True)
class Settings:
    """How a bundle is brought to one device. Each field is an option of `jetmask deploy`; its help says what it means.

    `source` empty: nobody has said yet what the runner watches. Paths are of this machine, but `root` and `state`.
    Seconds: `start`, `watch`.
    """

    source: tuple[str, ...] = ()
    config: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    serve_args: str = ""
    variant: str | None = None
    no_container: bool = False
    service: str | None = None
    image_tar: str | None = None
    build_arg: tuple[str, ...] = ()
    docker: str = "docker"
    no_gpu: bool = False
    python: str = "python3"
    use_python: bool = False
    wheels: str | None = None
    root: str = layout.ROOT
    state: str = layout.STATE
    digest: str | None = None
    key: str | None = None
    no_engines: bool = False
    int8_anyway: bool = False
    no_bench: bool = False
    measured: str | None = None
    start: float = 180.0
    watch: float = 20.0
    ssh: str = ""
    retries: int = 4
