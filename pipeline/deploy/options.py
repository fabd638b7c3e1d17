"""The options of `jetmask deploy`, checked before anything is done: a slip must not be told after minutes of work."""

import argparse
import math
import os
import re
import shlex

from jetson.bundle import signing
from jetson.errors import BadInput, UsageError


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


def check(args: argparse.Namespace, sends: bool) -> None:
    """UsageError or BadInput for an option that cannot be right, whatever the device is.

    `sends`: a deployment follows, so the files that it sends must be there; a question or the way back needs none.
    """
    words(args.ssh, "ssh")
    words(args.serve_args, "serve-args")
    for name in ("root", "state"):
        if not getattr(args, name).startswith("/"):
            raise UsageError(
                f"--{name} {getattr(args, name)}: not an absolute path",
                None,
                "a folder there from / on, such as /home/user/jetmask",
                "commands run in several folders there, and `~` is yours, not the device's",
            )
        if not _PLAIN.match(getattr(args, name)):
            raise UsageError(
                f"--{name} {getattr(args, name)!r}: a path that shells, docker and systemd would each read differently",
                None,
                "letters, digits and / . _ - + @ = , ~ %",
                "choose a folder without blanks and quotes",
            )
    for word in [*(args.source or ()), *words(args.serve_args, "serve-args"), args.host, args.variant or ""]:
        if not word.isprintable():
            raise UsageError(f"{word!r} holds a newline or another control character", None, "plain text")
    if not 1 <= args.port <= 65535:
        raise UsageError(f"--port {args.port}", None, "1 to 65535")
    if not (math.isfinite(args.start) and args.start > 0 and math.isfinite(args.watch) and args.watch >= 0):
        raise UsageError(f"--start {args.start:g} --watch {args.watch:g}", None, "seconds; --start above 0")
    if args.retries < 0:
        raise UsageError(f"--retries {args.retries}", None, "0 or more")
    for pair in args.build_arg:
        if "=" not in pair:
            raise UsageError(f"--build-arg {pair}: not KEY=VALUE")
    if not sends:
        return
    if args.key:
        signing.read_keys(args.key)
    if args.image_tar and not os.path.isfile(args.image_tar):
        raise BadInput("there is no such file: --image-tar", args.image_tar, "what `docker save` wrote")
    if args.wheels and not os.path.isdir(args.wheels):
        raise BadInput("there is no such folder: --wheels", args.wheels, "a folder of wheels")
    if args.measured and not os.path.isdir(os.path.dirname(os.path.abspath(args.measured))):
        raise BadInput("there is no such folder to write into: --measured", args.measured, None, "make it first")
