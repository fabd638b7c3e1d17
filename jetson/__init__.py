"""jetmask on the device: from a camera frame to boxes, and everything that must be the same there and on the host.

Runs under Python 3.6 and everything newer. Never imports `pipeline`.
"""

__version__ = "0.1.0"
