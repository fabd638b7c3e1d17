"""The options of `jetmask deploy`, checked before anything is done: a slip must not be told after minutes of work."""

import math
import os
import re
import shlex

from jetson.bundle import signing
from jetson.errors import BadInput, UsageError
from pipeline.deploy.settings import Settings

_PLAIN = re.compile(r"^[\w/.+@=,~%-]+$")


def words(text: str, option: str) -> list[str]:
    """The words of an option that holds several, as a shell would see them; UsageError where a quote is left open."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"--{option} is not a list of words: {str(error).lower()}",
            text,
            "words as in a shell, with every quote closed",
        ) from error


def check(settings: Settings, sends: bool) -> None:
    """UsageError or BadInput for an option that cannot be right, whatever the device is.

    `sends`: a deployment follows, so the files that it sends must be there; a question or the way back needs none.
    """
    words(settings.ssh, "ssh")
    words(settings.serve_args, "serve-args")
    for name in ("root", "state"):
        if not getattr(settings, name).startswith("/"):
            raise UsageError(
                f"--{name} {getattr(settings, name)}: not an absolute path",
                None,
                "a folder there from / on, such as /home/user/jetmask",
                "commands run in several folders there, and `~` is yours, not the device's",
            )
        if not _PLAIN.match(getattr(settings, name)):
            raise UsageError(
                f"--{name} {getattr(settings, name)!r}: shells, docker and systemd would each read it differently",
                None,
                "letters, digits and / . _ - + @ = , ~ %",
                "choose a folder without blanks and quotes",
            )
    for word in [
        *(settings.source or ()),
        *words(settings.serve_args, "serve-args"),
        settings.host,
        settings.variant or "",
    ]:
        if not word.isprintable():
            raise UsageError(f"{word!r} holds a newline or another control character", None, "plain text")
    if not 1 <= settings.port <= 65535:
        raise UsageError(f"--port {settings.port}", None, "1 to 65535")
    if not (
        math.isfinite(settings.start) and settings.start > 0 and math.isfinite(settings.watch) and settings.watch >= 0
    ):
        raise UsageError(f"--start {settings.start:g} --watch {settings.watch:g}", None, "seconds; --start above 0")
    if settings.retries < 0:
        raise UsageError(f"--retries {settings.retries}", None, "0 or more")
    for pair in settings.build_arg:
        if "=" not in pair:
            raise UsageError(f"--build-arg {pair}: not KEY=VALUE")
    if not sends:
        return
    if settings.key:
        signing.read_keys(settings.key)
    if settings.image_tar and not os.path.isfile(settings.image_tar):
        raise BadInput("no such file: --image-tar", settings.image_tar, "what `docker save` wrote")
    if settings.wheels and not os.path.isdir(settings.wheels):
        raise BadInput("no such folder: --wheels", settings.wheels, "a folder of wheels")
    if settings.measured and not os.path.isdir(os.path.dirname(os.path.abspath(settings.measured))):
        raise BadInput("no such folder to write into: --measured", settings.measured, None, "make it first")
