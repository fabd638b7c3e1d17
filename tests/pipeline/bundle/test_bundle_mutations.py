"""Damaged and hostile bundles, drawn at random: none is accepted, none crashes the reader, none writes outside."""

import os
import random
import shutil
from collections import Counter

import pytest

from jetson import files
from jetson.bundle import manifest, tarball
from jetson.errors import JetmaskError
from jetson.install import installer as install
from jetson.install.store import Store

SEED = 20


def _flip(rng, data):
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        at = rng.randrange(len(out))
        out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def _truncate(rng, data):
    return data[: rng.randrange(len(data))]


def _header_field(rng, data):
    """Rewrite a field of a member's header, and make its checksum right again."""
    out = bytearray(data)
    at = rng.choice(_headers(data))
    start, size, values = rng.choice(
        (
            (
                0,
                100,
                (b"../../evil", b"/tmp/evil", b"models/../x", b"a" * 100, b"", b"MANIFEST.JSON", b"models/t.onnx"),
            ),
            (
                124,
                12,
                (b"00000000000\0", b"77777777777\0", b"-0000000001\0", b"\x80" + b"\0" * 10 + b"\x05", b"  12  \0"),
            ),
            (156, 1, (b"1", b"2", b"3", b"5", b"6", b"7", b"x", b"g", b"L", b"S", b"\0", b"Z")),
            (157, 100, (b"/etc/passwd", b"../x")),
            (100, 8, (b"0004777\0", b"0000000\0")),
            (108, 8, (b"0001750\0",)),
            (257, 8, (b"ustar  \0", b"\0" * 8)),
            (345, 155, (b"../..", b"deep")),
        )
    )
    value = rng.choice(values)
    out[at + start : at + start + size] = value[:size].ljust(size, b"\0")
    out[at + 148 : at + 156] = b" " * 8
    out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def _headers(data):
    found, at = [], 0
    while data[at : at + 1] not in (b"", b"\0"):
        found.append(at)
        at += 512 + -(-int(data[at + 124 : at + 135], 8) // 512) * 512
    return found


def _members(data):
    starts = _headers(data)
    ends = [*starts[1:], len(data) - 1024]
    return [data[a:b] for a, b in zip(starts, ends, strict=True)]


def _reorder(rng, data):
    parts = _members(data)
    what = rng.choice(("swap", "drop", "twice", "end early", "insert"))
    if what == "swap":
        a, b = rng.sample(range(len(parts)), 2)
        parts[a], parts[b] = parts[b], parts[a]
    elif what == "drop":
        parts.pop(rng.randrange(len(parts)))
    elif what == "twice":
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(parts))
    elif what == "end early":
        parts.insert(rng.randrange(len(parts)), b"\0" * 512 * rng.choice((1, 2)))
    else:
        name = rng.choice(("models/more.onnx", "aa", "zz", "SHA256SUMS.sig", "golden/x.png"))
        body = rng.randbytes(rng.choice((0, 1, 64, 512, 700)))
        parts.insert(rng.randrange(len(parts) + 1), tarball.header(name, len(body)) + body + b"\0" * (-len(body) % 512))
    return b"".join(parts) + b"\0" * 1024


def _append(rng, data):
    return data + rng.choice((b"\0" * 512, b"x", b"\0" * 10240, data[:1024]))


TAR = (_flip, _flip, _truncate, _header_field, _header_field, _reorder, _append)


def _mutate_folder(rng, folder):
    names = manifest.listing(folder)
    path = os.path.join(folder, rng.choice(names))
    what = rng.choice(
        ("flip", "flip", "cut", "remove", "rename", "add", "link", "hard swap", "folder", "fifo", "sums", "manifest")
    )
    if what in ("flip", "cut"):
        with open(path, "rb") as file:
            data = file.read()
        with open(path, "wb") as file:
            file.write(_flip(rng, data) if what == "flip" else _truncate(rng, data))
    elif what == "remove":
        os.unlink(path)
    elif what == "rename":
        os.rename(path, path + rng.choice((".old", "x", "~")))
    elif what == "add":
        with open(os.path.join(folder, rng.choice(("models/x.onnx", ".hidden", "golden/y", "a b"))), "wb") as file:
            file.write(rng.randbytes(10))
    elif what == "link":
        os.rename(path, folder + ".aside")
        os.symlink(rng.choice((folder + ".aside", "/etc/passwd", "nowhere")), path)
    elif what == "hard swap":
        other = os.path.join(folder, rng.choice([name for name in names if os.path.join(folder, name) != path]))
        os.replace(path, other)
    elif what == "folder":
        os.unlink(path)
        os.mkdir(path)
    elif what == "fifo":
        os.unlink(path)
        os.mkfifo(path)
    else:
        path = os.path.join(folder, "SHA256SUMS" if what == "sums" else "manifest.json")
        with open(path, "rb") as file:
            lines = file.read().splitlines(keepends=True)
        at = rng.randrange(len(lines))
        lines[at : at + 1] = rng.choice(([], [lines[at]] * 2, [_flip(rng, lines[at])], [b"junk\n"], [b"\xff\xfe\n"]))
        with open(path, "wb") as file:
            file.write(b"".join(lines))
    return what


def _mutations(tiny_bundle, tmp_path, count):
    rng = random.Random(SEED)
    tar = str(tmp_path / "whole.tar")
    tarball.pack(tiny_bundle, tar)
    with open(tar, "rb") as file:
        whole = file.read()
    digest = files.sha256(os.path.join(tiny_bundle, "SHA256SUMS"))
    (tmp_path / "in").mkdir()
    (tmp_path / "guard").mkdir()
    store = Store(str(tmp_path / "guard" / "state"))
    reasons = Counter()
    tried = 0
    while tried < count:
        source = str(tmp_path / "in" / "bundle")
        if rng.random() < 0.6:
            data = rng.choice(TAR)(rng, whole)
            if data == whole:
                continue
            with open(source, "wb") as file:
                file.write(data)
        else:
            shutil.copytree(tiny_bundle, source)
            _mutate_folder(rng, source)
        tried += 1
        try:
            found = install.install(store, source, digest)
        except JetmaskError as error:
            reasons[str(error.what)[:24]] += 1
        else:
            # Only a change that leaves every byte as it was may come through (a file swapped with an equal one).
            manifest.verify(store.bundle(found))
            assert found == digest
            for name in manifest.listing(tiny_bundle):
                assert files.sha256(os.path.join(store.bundle(found), name)) == files.sha256(
                    os.path.join(tiny_bundle, name)
                ), "an altered bundle was accepted"
            raise AssertionError(f"mutation {tried} was accepted")
        assert os.listdir(store.bundles) == []
        assert sorted(os.listdir(tmp_path)) == ["guard", "in", "whole.tar"]
        assert os.listdir(tmp_path / "guard") == ["state"]
        for name in os.listdir(tmp_path / "in"):
            path = str(tmp_path / "in" / name)
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    return reasons


def test_a_sample_of_mutated_bundles_is_refused(tiny_bundle, tmp_path):
    reasons = _mutations(tiny_bundle, tmp_path, 60)
    assert len(reasons) >= 10, reasons


@pytest.mark.full
def test_two_thousand_mutated_bundles_are_refused(tiny_bundle, tmp_path):
    reasons = _mutations(tiny_bundle, tmp_path, 2000)
    print(reasons.most_common())
    assert sum(reasons.values()) == 2000
