"""A new configuration with its comments: what is likely to be set is there, what else there is stands behind a #."""

import json
import re
from typing import List, Sequence, Tuple

from jetson.errors import BadInput

_HEAD = """\
# yaml-language-server: $schema=jetmask.schema.json
# With that line an editor completes and checks this file: python3 -m jetson config schema > jetmask.schema.json
# What this runner does: python3 -m jetson serve BUNDLE --config FILE
# Read again when it changes; `python3 -m jetson config check FILE` says whether it is right.

cameras:
"""
_CAMERA = """\
    # size: 1280x720            # to ask the camera for
    # fps: 10                   # frames a second
    # rotate: 0                 # degrees clockwise: 0, 90, 180, 270
    # roi: [0, 0, 1, 1]         # where to look: left, top, right, bottom, shares of the picture
    # score: 0.4                # faces from this score
    # blur: true                # no recognisable face in any picture that is served
    # pictures: off             # kept of this camera's events: off, crop or frame
    # clips: false              # no film around its alerts
    # lines:
    #   door: [[0.5, 0], [0.5, 1]]
    # zones:
    #   queue: [[0.1, 0.4], [0.5, 0.4], [0.5, 0.95], [0.1, 0.95]]
    # was: OLDNAME              # after a rename: counts and drift go on
"""
_REST = """
# Passwords are in a file of their own, readable by its owner alone: lines of `NAME USER:PASSWORD`.
# credentials: credentials

engine:
  variant: auto                 # the most accurate that keeps the cameras' rate here; or a variant's name
  # governor: fps=10            # keep a goal by switching variants: fps, watts, celsius

events:
  days: 30                      # events are kept for so long,
  mb: 200                       # and in so many megabytes
  # pictures: crop              # kept with the events: the best picture of each person; frame: the whole frame, too
  # blur: true                  # no recognisable face in what is kept
  # clips: {before: 5, after: 5}  # seconds of film around each alert
  # media_mb: 500               # pictures and clips: at most so many megabytes

# mqtt:
#   broker: mqtt://10.0.0.5
#   credentials: broker         # a line of the credentials file

# alerts:
#   rules:
#     - when: no_mask > 5 s in zone queue between 8 and 18
#     - when: camera lost > 1 min
#   receivers:
#     office: {kind: webhook, url: {file: office.url}}   # or ntfy, email, mqtt, command, gpio: docs/alerts.md

page:
  host: 127.0.0.1               # 0.0.0.0: other machines may open it, with a token
  port: 8080
"""


def text(cameras: Sequence[Tuple[str, str]]) -> str:
    """The file for cameras (name, address). BadInput for a name or address that cannot stand in one line."""
    parts: List[str] = [_HEAD]
    for number, (name, address) in enumerate(cameras):
        if not (name + address).isprintable():
            raise BadInput("a name or an address with a line break", None, "plain text")
        parts.append(f"  {_scalar(name)}:\n    source: {_scalar(address)}\n" + (_CAMERA if not number else ""))
    return "".join(parts) + _REST


def _scalar(value: str) -> str:
    """A text as YAML: as it is where that means the same, else in double quotes, which are JSON's."""
    plain = re.match(r"^[A-Za-z_/][^#:{}\[\],&*!|>'\"%@`]*(://[^\s#{}\[\],'\"]*)?$", value)
    return value if plain and value == value.strip() else json.dumps(value, ensure_ascii=False)
