"""`python3 -m jetson` whose first-light takes seconds, not minutes, for its tests.

FIRST_LIGHT_ROOT   a folder that stands for / where the machine's own files are read
"""

import os
import sys

from jetson import cli
from jetson.__main__ import VERBS
from jetson.firstlight import cameras, comeback, engines
from jetson.firstlight import cli as verb


def main():
    cameras.WATCH_S, cameras.FIRST_FRAME_S = 0.5, 8.0
    engines.TIME_S, comeback.START_S = 0.2, 40.0
    plain, root = verb._settings, os.environ.get("FIRST_LIGHT_ROOT")
    if root:
        verb._settings = lambda args: plain(args)._replace(root=root)
    return cli.main(None, "python3 -m jetson", VERBS)


if __name__ == "__main__":
    sys.exit(main())
