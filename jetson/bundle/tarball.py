"""A bundle as one tar file: the same files give the same bytes, and nothing but such a file is unpacked.

The format is POSIX ustar without compression, cut down until it has one spelling only: regular files, mode 0644, owner
0, time 0, `manifest.json` first and the rest sorted, two zero blocks at the end. manifest.json's `files` announces the
size of every other member, so nothing is written that was not announced. Python's own tarfile is not used for reading:
it follows links, sparse maps and extension headers, and takes a damaged header for the end of the file.
"""

import os
from typing import BinaryIO, Dict, Iterator, List, Tuple

from jetson import files
from jetson.bundle.manifest import AGAIN, MOST_BYTES, SIGNATURE, SUMS, listing
from jetson.bundle.paths import inside, name_problem
from jetson.errors import BadInput

BLOCK = 512
MANIFEST = "manifest.json"
MAX_BUNDLE_BYTES = 1 << 30
MAX_FILES = 5000
# What cannot be announced in the manifest because it is made after it.
UNANNOUNCED = {MANIFEST: MOST_BYTES, SUMS: MOST_BYTES, SIGNATURE: 64}
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"x": "an extension header",
    b"g": "an extension header",
    b"L": "an over-long name",
    b"K": "an over-long link",
    b"V": "a volume label",
}


def header(name: str, size: int) -> bytes:
    """The one tar header (512 bytes) that a bundle may have for this name and size in bytes."""
    fields = [
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0",
        b"0000000\0",
        f"{size:011o}\0".encode("ascii"),
        b"00000000000\0",
        b" " * 8,
        b"0",
        b"\0" * 100,
        b"ustar\0",
        b"00",
        b"\0" * 32,
        b"\0" * 32,
        b"0000000\0",
        b"0000000\0",
        b"\0" * 155,
        b"\0" * 12,
    ]
    total = sum(sum(field) for field in fields)
    fields[6] = f"{total:06o}\0 ".encode("ascii")
    return b"".join(fields)


def order(names: List[str]) -> List[str]:
    """The order of the members: what announces the sizes comes first."""
    return [MANIFEST] + sorted(name for name in names if name != MANIFEST)


def pack(bundle_dir: str, path: str) -> None:
    """Write the bundle in `bundle_dir` as the tar file `path`; the same files give the same bytes."""
    check_sizes(bundle_dir)
    names = listing(bundle_dir)
    with files.aside(path) as part, open(part, "wb") as out:
        for name in order(names):
            size = os.path.getsize(os.path.join(bundle_dir, name))
            out.write(header(name, size))
            with open(os.path.join(bundle_dir, name), "rb") as source:
                copied = _copy(source, out, size)
            if copied != size:
                raise BadInput("the file changed while it was packed", os.path.join(bundle_dir, name))
            out.write(b"\0" * (-size % BLOCK))
        out.write(b"\0" * (2 * BLOCK))


def extract(path: str, folder: str) -> None:
    """Unpack the tar file `path` into the new folder `folder`, which must not exist.

    BadInput for anything that `pack` would not have written; what was unpacked until then is left in `folder`, which
    is the caller's to remove. Nothing is ever written outside it, and no more bytes than the manifest announces.
    """
    os.mkdir(folder, 0o755)
    with open(path, "rb") as source:
        announced = {}  # type: Dict[str, int]
        seen = {}  # type: Dict[str, None]
        for name, size in _members(source, path):
            where = f"{path}, member {repr(name):.120}"
            if not seen and name != MANIFEST:
                raise BadInput(f"the first member is not {MANIFEST}", where, None, _REPACK)
            if name in seen:
                raise BadInput("the name appears twice", where, None, _REPACK)
            limit = UNANNOUNCED.get(name)
            if limit is not None:
                if size > limit:
                    raise BadInput(f"{size} bytes are too many", where, f"at most {limit}")
            elif name not in announced:
                raise BadInput(f"the file is not announced in {MANIFEST}", where, None, _REPACK)
            elif announced[name] != size:
                raise BadInput(
                    f"the file has {size} bytes",
                    where,
                    f"the {announced[name]} bytes that {MANIFEST} announces",
                    _REPACK,
                )
            seen[name] = None
            _write_member(source, folder, name, size, where)
            if name == MANIFEST:
                announced = _announced(files.read_json(os.path.join(folder, MANIFEST), MOST_BYTES), path)
        if list(seen) != order(list(seen)) or not seen:
            raise BadInput("the members are not in order", path, None, _REPACK)
        absent = [name for name in announced if name not in seen]
        if absent:
            raise BadInput(f"announced in {MANIFEST}, but not there: {', '.join(absent[:5])}", path, None, _REPACK)


_REPACK = "make the file with `jetmask bundle pack`, and copy it again"


def _members(source: BinaryIO, path: str) -> Iterator[Tuple[str, int]]:
    while True:
        start = source.tell()
        block = source.read(BLOCK)
        if block == b"\0" * BLOCK:
            if source.read(BLOCK + 1) != b"\0" * BLOCK:  # not all of it: gigabytes may follow
                raise BadInput("there is something after the end, or the end is cut off", path, None, _REPACK)
            return
        where = f"{path}, byte {start}"
        if len(block) < BLOCK:
            raise BadInput("the tar file is cut off", where, None, "copy it again")
        if block[257:263] not in (b"ustar\0", b"ustar "):
            raise BadInput("not a tar file", where, "a bundle packed by `jetmask bundle pack`", _REPACK)
        kind = block[156:157]
        raw_name = block[:100].rstrip(b"\0")
        if kind not in (b"0", b"\0"):
            raise BadInput(
                f"{_KINDS.get(kind, f'an entry of kind {kind!r}')} is in the tar file: {repr(raw_name):.100}",
                where,
                "plain files only",
                _REPACK,
            )
        try:
            name = raw_name.decode("ascii")
            size = int(block[124:136].rstrip(b"\0 ").decode("ascii"), 8)
        except ValueError as error:
            raise BadInput("a header of the tar file is damaged", where, None, "copy it again") from error
        problem = name_problem(name)
        if problem:
            raise BadInput(f"{problem} is in the tar file: {repr(name):.110}", where, None, _REPACK)
        if size < 0 or size > MAX_BUNDLE_BYTES:
            raise BadInput(f"a member of {size} bytes", where, f"at most {MAX_BUNDLE_BYTES}")
        if block != header(name, size):
            raise BadInput("a tar header is not in the form that bundles have", where, None, _REPACK)
        yield name, size
        if source.tell() != start + BLOCK + size + (-size % BLOCK):
            raise AssertionError("a member was not read to its end")


def _write_member(source: BinaryIO, folder: str, name: str, size: int, where: str) -> None:
    target = inside(folder, name)
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    # O_EXCL and O_NOFOLLOW: even a link planted in the folder meanwhile is not written through.
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "wb") as out:
        if _copy(source, out, size) != size:
            raise BadInput("the tar file is cut off", where, None, "copy it again")
        out.flush()
        os.fsync(out.fileno())
    if source.read(-size % BLOCK) != b"\0" * (-size % BLOCK):
        raise BadInput("the padding after the file is not empty or is cut off", where, None, _REPACK)


def _copy(source: BinaryIO, out: BinaryIO, size: int) -> int:
    left = size
    while left:
        block = source.read(min(left, 1 << 20))
        if not block:
            break
        out.write(block)
        left -= len(block)
    return size - left


def _check_names(names: List[str], where: str) -> None:
    """Refuse what two file systems would understand differently."""
    if len(names) > MAX_FILES:
        raise BadInput(f"more than {MAX_FILES} files", where)
    lowered = {}  # type: Dict[str, str]
    whole = set(names)
    for name in names:
        problem = name_problem(name)
        if problem:
            raise BadInput(f"{problem}: {repr(name):.110}", where, None, "rename or remove the file")
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            before = lowered.setdefault(path.lower(), path)
            if before != path:
                raise BadInput(f"two names differ in case only: {before} and {path}", where)
        if any("/".join(parts[:depth]) in whole for depth in range(1, len(parts))):
            raise BadInput(f"a name is a file and a folder: {name}", where)


def _announced(manifest: object, where: str) -> Dict[str, int]:
    """{name: bytes} of manifest.json's `files`, checked, with what stands in no such list."""
    sizes = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(sizes, dict) or not sizes:
        raise BadInput(
            "manifest.json does not announce the bundle's files",
            where,
            "`files`: {name: bytes}",
            "write the bundle again with this version of jetmask",
        )
    for name, size in sizes.items():
        problem = name_problem(name)
        if problem or name in UNANNOUNCED or not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BadInput(f"a wrong entry in manifest.json's `files`: {repr((name, size)):.110}", where)
    _check_names(list(sizes) + list(UNANNOUNCED), where)
    if sum(sizes.values()) > MAX_BUNDLE_BYTES:
        raise BadInput(f"the bundle announces {sum(sizes.values())} bytes", where, f"at most {MAX_BUNDLE_BYTES}")
    announced = dict(sizes)
    announced[SUMS] = -1
    return announced


def check_sizes(bundle_dir: str) -> None:
    """BadInput unless manifest.json announces exactly the files that are in `bundle_dir`, with their sizes."""
    announced = _announced(files.read_json(os.path.join(bundle_dir, MANIFEST), MOST_BYTES), bundle_dir)
    names = listing(bundle_dir)
    _check_names(names, bundle_dir)
    for name in names:
        size = os.path.getsize(os.path.join(bundle_dir, name))
        limit = UNANNOUNCED.get(name)
        if size > limit if limit is not None else announced.get(name) != size:
            raise BadInput(
                f"the file has {size} bytes",
                os.path.join(bundle_dir, name),
                f"at most {limit}"
                if limit is not None
                else f"{announced.get(name, 'not to be there')} (manifest.json)",
                AGAIN,
            )
    absent = sorted(set(announced) - set(names))
    if absent:
        raise BadInput(
            f"announced in manifest.json, but not there: {', '.join(absent[:5])}",
            bundle_dir,
            "every file of the bundle",
            AGAIN,
        )
