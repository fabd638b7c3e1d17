"""The bundle's tar file: one spelling, and nothing else gets in."""

import json
import os
import tarfile
import tracemalloc

import pytest

from jetson import files
from jetson.bundle import manifest, tarball
from jetson.errors import BadInput


@pytest.fixture
def packed(tiny_bundle, tmp_path):
    path = str(tmp_path / "bundle.tar")
    tarball.pack(tiny_bundle, path)
    return path


def _entry(info, data):
    """A member as an attacker would write it: spelt like ours, but for what `info` says of name, kind and link."""
    block = bytearray(tarball.header("x", len(data)))
    name, link = info.name.encode("utf-8"), info.linkname.encode()
    block[0:100] = name[:100].ljust(100, b"\0")
    block[156:157] = info.type
    block[157:257] = link.ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\x00 ".encode()
    return bytes(block) + data + b"\0" * (-len(data) % 512)


def _rewritten(packed, change):
    """The tar file with its members changed by `change(list of (TarInfo, bytes))`."""
    with tarfile.open(packed) as source:
        members = [(info, source.extractfile(info).read()) for info in source]
    with open(packed, "wb") as file:
        file.write(b"".join(_entry(info, data) for info, data in change(members)) + b"\0" * 1024)


def _refused(path, tmp_path, *words):
    folder = str(tmp_path / "out")
    with pytest.raises(BadInput) as caught:
        tarball.extract(path, folder)
    for word in words:
        assert word in str(caught.value)
    inside = [os.path.join(where, name) for where, _, names in os.walk(str(tmp_path)) for name in names]
    assert all(name == path or name.startswith(folder) for name in inside)
    assert not any(os.path.islink(name) for name in inside)


def _member(name, kind=tarfile.REGTYPE, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode, info.mtime = kind, link, size, 0o644, 0
    return info


def test_what_is_packed_comes_out_equal(packed, tiny_bundle, tmp_path):
    out = str(tmp_path / "out")
    tarball.extract(packed, out)
    assert manifest.listing(out) == manifest.listing(tiny_bundle)
    for name in manifest.listing(out):
        assert files.sha256(os.path.join(out, name)) == files.sha256(os.path.join(tiny_bundle, name))
    manifest.verify(out)


def test_the_same_bundle_gives_the_same_bytes(packed, tiny_copy, tmp_path):
    for name in manifest.listing(tiny_copy):
        os.utime(os.path.join(tiny_copy, name), (1, 1))
        os.chmod(os.path.join(tiny_copy, name), 0o600)
    again = str(tmp_path / "again.tar")
    tarball.pack(tiny_copy, again)
    assert files.sha256(again) == files.sha256(packed)


def test_other_programs_read_it(packed, tiny_bundle):
    with tarfile.open(packed) as archive:
        infos = archive.getmembers()
    assert [info.name for info in infos] == tarball.order(manifest.listing(tiny_bundle))
    assert all(info.isreg() and info.mode == 0o644 and info.mtime == 0 and info.uid == 0 for info in infos)


@pytest.mark.parametrize(
    "name,word",
    [
        ("../evil", "leaves the bundle"),
        ("models/../../evil", "leaves the bundle"),
        ("/tmp/evil", "absolute"),
        ("mod\\evil", "character"),
        ("models/.hidden", "character"),
        ("a b", "character"),
        ("models//x", "character"),
        ("./manifest.json", "character"),
        ("caf\u00e9", "damaged"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(packed, tmp_path, name, word):
    _rewritten(packed, lambda members: members + [(_member(name), b"")])
    _refused(packed, tmp_path, word)


@pytest.mark.parametrize(
    "kind,word",
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "pipe"),
        (tarfile.DIRTYPE, "folder"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (b"7", "kind"),
    ],
)
def test_what_is_no_plain_file_is_refused(packed, tmp_path, kind, word):
    _rewritten(packed, lambda members: members + [(_member("models/x", kind, "/etc/passwd"), b"")])
    _refused(packed, tmp_path, word)


def test_a_link_followed_by_a_file_through_it_writes_nothing_outside(packed, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    _rewritten(packed, lambda m: m[:1] + [(_member("models", tarfile.SYMTYPE, str(outside)), b"")] + m[1:])
    _refused(packed, tmp_path, "symbolic link")
    assert os.listdir(str(outside)) == []


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_over_long_names_are_refused(packed, tmp_path, style):
    info = _member("models/" + "x" * 150)
    extension = info.tobuf(style)
    with open(packed, "rb") as file:
        whole = file.read()
    with open(packed, "wb") as file:
        file.write(whole[:-1024] + extension + b"\0" * 1024)
    _refused(packed, tmp_path, "over-long" if style == tarfile.GNU_FORMAT else "extension header")


def test_a_name_twice_is_refused(packed, tmp_path):
    _rewritten(packed, lambda members: members + members[-1:])
    _refused(packed, tmp_path, "twice")


def test_files_that_are_not_announced_are_refused(packed, tmp_path):
    _rewritten(packed, lambda members: members + [(_member("models/zz.onnx"), b"more")])
    _refused(packed, tmp_path, "not announced")


def test_a_bomb_stops_before_it_is_written(packed, tmp_path):
    def swell(members):
        info, data = members[-1]
        return members[:-1] + [(info, data + b"\0" * 50000000)]

    _rewritten(packed, swell)
    _refused(packed, tmp_path, "announces")
    written = sum(os.path.getsize(os.path.join(w, n)) for w, _, names in os.walk(str(tmp_path / "out")) for n in names)
    assert written < 2000000


def test_a_manifest_that_announces_too_much_is_refused(packed, tmp_path):
    def boast(members):
        value = json.loads(members[0][1].decode())
        value["files"]["models/t.onnx"] = 1 << 40
        return [(members[0][0], json.dumps(value).encode())] + members[1:]

    _rewritten(packed, boast)
    _refused(packed, tmp_path, "at most")


@pytest.mark.parametrize("pair", [("models/T.onnx", "models/t.onnx"), ("Models/x", "Models"), ("models", "models/")])
def test_names_that_collide_elsewhere_are_refused(packed, tmp_path, pair):
    def collide(members):
        value = json.loads(members[0][1].decode())
        value["files"][pair[0]] = 0
        return [(members[0][0], json.dumps(value).encode())] + members[1:] + [(_member(pair[0]), b"")]

    _rewritten(packed, collide)
    _refused(packed, tmp_path, pair[1])


@pytest.mark.parametrize(
    "value",
    [
        "nothing",
        [],
        {},
        {"models/t.onnx": -1},
        {"models/t.onnx": True},
        {"models/t.onnx": "5"},
        {"../x": 1},
        {"SHA256SUMS": 5},
    ],
)
def test_a_wrong_announcement_is_refused(packed, tmp_path, value):
    def spoil(members):
        document = json.loads(members[0][1].decode())
        document["files"] = value
        return [(members[0][0], json.dumps(document).encode())] + members[1:]

    _rewritten(packed, spoil)
    _refused(packed, tmp_path, "manifest.json")


def test_an_order_of_its_own_is_refused(packed, tmp_path):
    _rewritten(packed, lambda members: members[1:] + members[:1])
    _refused(packed, tmp_path, "first member")


def test_padding_cut_and_tail_are_refused(packed, tmp_path):
    with open(packed, "rb") as file:
        whole = file.read()
    for number, data in enumerate(
        (
            whole[:-1],
            whole[:-512],
            whole + b"\0" * 512,
            whole[:700],
            b"",
            b"\0" * 1024,
            whole[:-1024] + b"x" * 1024,
            b"not a tar file at all" * 100,
        )
    ):
        with open(packed, "wb") as file:
            file.write(data)
        with pytest.raises(BadInput):
            tarball.extract(packed, str(tmp_path / f"out{number}"))


def test_a_tail_of_gigabytes_is_not_read_into_memory(packed, tmp_path):
    with open(packed, "r+b") as file:
        file.truncate(os.path.getsize(packed) + (64 << 20))  # sparse: it costs no disk, and the sender nothing
    tracemalloc.start()
    _refused(packed, tmp_path, "after the end")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16 << 20


def test_packing_refuses_a_folder_that_could_not_be_unpacked(tiny_copy, tmp_path):
    with open(os.path.join(tiny_copy, "notes with blanks.txt"), "w"):
        pass
    with pytest.raises(BadInput) as caught:
        tarball.pack(tiny_copy, str(tmp_path / "x.tar"))
    assert "notes with blanks" in str(caught.value)
    assert not os.path.exists(str(tmp_path / "x.tar"))
