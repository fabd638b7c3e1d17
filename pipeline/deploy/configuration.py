"""`deploy --config FILE`: the file is checked here, with its lines, and travels as JSON, which every device can read.

It lies on the device under a name made from its content, so that the way back finds the file that ran before, and zones
that were drawn on the page there stay as long as the file here is the same. Passwords stay where they are: an address
names them as {NAME}, and the device has a file of its own (docs/access.md).
"""

import dataclasses
import hashlib
from typing import NamedTuple

from jetson.config import document
from jetson.config import settings as config
from jetson.errors import BadInput, UsageError
from pipeline.deploy.settings import Settings

FOLDER = "config"


class Configuration(NamedTuple):
    """A file that is ready to be sent. `sources`: what it watches, as written; `name`: of the file on the device."""

    text: str
    sources: tuple[str, ...]
    name: str
    warnings: tuple[str, ...]


def read(path: str) -> tuple[Configuration, config.Settings]:
    """The file, checked. BadInput with its line; for one with a password in it, too: it must not travel."""
    found = config.read(path)
    if found.warnings:
        raise BadInput("the file would carry a password to the device: " + found.warnings[0], path)
    cameras = found.document.data["cameras"].values()
    text = document.as_json(found.document.data)
    name = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16] + ".json"
    sources = tuple(camera["source"] for camera in cameras if camera.get("enabled", True))
    return Configuration(text, sources, name, found.warnings), found


def merged(settings: Settings) -> tuple[Settings, Configuration | None]:
    """The settings of a deployment with what its file says; UsageError for what stands in both."""
    if settings.config is None:
        return settings, None
    if settings.source:
        raise UsageError("--source beside --config", "--source", f"cameras in {settings.config}")
    configuration, found = read(settings.config)
    usual = Settings()
    wanted = found.engine.variant if found.engine.variant not in (None, "auto") else None
    return (
        dataclasses.replace(
            settings,
            source=configuration.sources,
            host=found.page.host if settings.host == usual.host else settings.host,
            port=(found.page.port or usual.port) if settings.port == usual.port else settings.port,
            variant=settings.variant or wanted,
        ),
        configuration,
    )
