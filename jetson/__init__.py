"""jetmask on the device: from a camera frame to boxes, and everything that must be the same there and on the host.

Runs under Python 3.6 and everything newer. Never imports `pipeline`.
"""

import os
import platform
import sys

__version__ = "0.2.0"

# Before anybody imports numpy, in this process or a child: numpy 1.19.5, the last one for Python 3.6, otherwise dies of
# an illegal instruction on a Nano (numpy#18131). The service sets it too; a verb that is started by hand comes here.
if platform.machine() == "aarch64" and sys.version_info < (3, 7):
    os.environ.setdefault("OPENBLAS_CORETYPE", "ARMV8")

# Before anybody imports cv2: what it decodes at most, in pixels. Its own limit of 2^30 lets a file of under a megabyte
# take four gigabytes (jetson/imagefile.py looks at the announced size first, with a clear message).
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(100 * 1000 * 1000))
