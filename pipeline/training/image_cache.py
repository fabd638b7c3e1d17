"""Decoded photographs, kept in memory while there is room for them: a data set of large ones is larger than any memory,
and a training that is killed by the kernel after an hour says nothing."""

import contextlib
import os
import sys

from jetson import memory

SHARE = 0.5  # of the memory that this process may have
LEFT = 0.25  # of it must stay free, for whatever else runs here: other trials of a sweep, say
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def total():
    """Bytes of memory that this process may have: the machine's, or what its control group allows."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in LIMITS:
        with contextlib.suppress(OSError, ValueError), open(path) as file:  # ValueError: "max"
            found.append(int(file.read()))
    return min(found)


class Kept:
    """{path: read-only image}, as long as there is room. What does not fit is decoded again at every use: to drop
    another for it would gain nothing, since all are asked for equally often."""

    def __init__(self):
        self.images, self.bytes, self.told = {}, 0, False
        self.last = None, None  # what was decoded last is mostly asked for again at once, for its size first

    def get(self, path, decode):
        """The image of `path`, by `decode(path)` where it is not kept."""
        image = self.images.get(path)
        if image is None:
            known, image = self.last
            if known == path:
                return image
            image = decode(path)
            image.setflags(write=False)  # so that no augmentation edits a photograph
            self.last = path, image
            if self._room(image.nbytes):
                self.images[path] = image
                self.bytes += image.nbytes
        return image

    def _room(self, more):
        limit, free = total(), memory.left()
        if self.bytes + more <= SHARE * limit and (free is None or free - more >= LEFT * limit):
            return True
        if not self.told:
            self.told = True
            print(
                "mind: memory holds %d of the photographs (%.1f GB decoded), the others are decoded at every use; "
                "copies of some 1000 px train faster" % (len(self.images), self.bytes / 1e9),
                file=sys.stderr,
            )
        return False
