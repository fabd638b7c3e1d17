"""Downloads against a server on loopback that breaks off, changes its mind, or cannot resume; archives that lie."""

import hashlib
import http.server
import json
import re
import threading
import zipfile

import numpy as np
import pytest
from refusals import refused

from jetson import cli
from jetson.errors import BadInput, JetmaskError
from pipeline.cli import VERBS
from pipeline.data import download, fetch

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` with `etag`; `cuts` says after how many bytes each of the next answers breaks off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.cuts, self.ranges, self.statuses, self.asked = CONTENT, '"one"', [], True, [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/set.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1))
            if start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(server.content) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else None
        self.wfile.write(server.content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda _: None)


def left(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_a_plain_download(server, tmp_path):
    assert download.fetch(server.url, tmp_path / "deep" / "a.zip", SHA256) == SHA256
    assert (tmp_path / "deep" / "a.zip").read_bytes() == CONTENT and left(tmp_path / "deep") == ["a.zip"]


def test_a_line_that_breaks_is_gone_on_with(server, tmp_path):
    server.cuts = [70_000, 0, 1, 100_000]
    assert download.fetch(server.url, tmp_path / "a.zip") == SHA256
    starts = [0 if r is None else int(r[6:-1]) for r in server.asked]
    assert starts == [0, 70_000, 70_000, 70_001, 170_001]


def test_a_killed_download_is_gone_on_with_by_the_next_run(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:123_456])
    (tmp_path / "a.zip.part.json").write_text(
        json.dumps({"url": server.url, "version": '"one"', "bytes": len(CONTENT)})
    )
    assert download.fetch(server.url, tmp_path / "a.zip", SHA256) == SHA256
    assert server.asked == ["bytes=123456-"] and left(tmp_path) == ["a.zip"]


def test_a_part_that_is_already_whole_is_taken(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    (tmp_path / "a.zip.part.json").write_text(
        json.dumps({"url": server.url, "version": '"one"', "bytes": len(CONTENT)})
    )
    assert download.fetch(server.url, tmp_path / "a.zip") == SHA256


@pytest.mark.parametrize("change", ["etag", "url", "no ranges", "no note", "weak", "no etag"])
def test_halves_of_different_files_are_never_put_together(change, server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(b"old" * 40_000)
    if change != "no note":
        note = {"url": server.url if change != "url" else "http://other/", "version": '"one"', "bytes": 999_999}
        (tmp_path / "a.zip.part.json").write_text(json.dumps(note))
    server.etag = {"etag": '"two"', "weak": 'W/"one"', "no etag": ""}.get(change, '"one"')
    server.ranges = change != "no ranges"
    server.cuts = [50_000] if change in ("weak", "no etag") else []
    assert download.fetch(server.url, tmp_path / "a.zip") == SHA256
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_the_file_changes_between_two_halves(server, tmp_path):
    server.cuts = [100_000]

    def progress(done, _):
        server.content, server.etag = CONTENT[::-1], '"two"'

    assert (
        download.fetch(server.url, tmp_path / "a.zip", progress=progress) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    )


def test_a_kill_as_a_new_version_begins_leaves_no_old_half(server, tmp_path, monkeypatch):
    (tmp_path / "a.zip.part").write_bytes(b"old" * 40_000)
    (tmp_path / "a.zip.part.json").write_text(json.dumps({"url": server.url, "version": '"zero"', "bytes": 120_000}))
    write = download.files.write_json

    def killed(path, value):
        write(path, value)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download.files, "write_json", killed)
        download.fetch(server.url, tmp_path / "a.zip")
    assert download.fetch(server.url, tmp_path / "a.zip") == SHA256


def test_a_wrong_checksum_leaves_no_file(server, tmp_path):
    with refused(BadInput, where="set.zip", names="sha256") as caught:
        download.fetch(server.url, tmp_path / "a.zip", "0" * 64)
    assert SHA256 in str(caught.value) and left(tmp_path) == ["a.zip.part.json"]


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(server, tmp_path):
    server.statuses = [503, 429]
    assert download.fetch(server.url, tmp_path / "a.zip") == SHA256
    server.statuses, server.asked = [404], []
    with refused(JetmaskError, where="set.zip", names=["404", "b.zip"]):
        download.fetch(server.url, tmp_path / "b.zip")
    assert len(server.asked) == 1


def test_no_server_ends_with_a_clear_word(tmp_path):
    with refused(JetmaskError, where="a.zip", names="a.zip"):
        download.fetch("http://127.0.0.1:9/a.zip", tmp_path / "a.zip")
    with refused(JetmaskError, where="no-such-host.invalid/a.zip", names="b.zip"):
        download.fetch("http://no-such-host.invalid/a.zip", tmp_path / "b.zip")


def archive(path, entries):
    with zipfile.ZipFile(path, "w") as content:
        for name, data in entries:
            content.writestr(name, data)
    return path


def test_unpack(tmp_path):
    source = archive(tmp_path / "a.zip", [("set/a.txt", b"1"), ("set/deep/b.txt", b"22"), ("set/empty/", b"")])
    assert download.unpack(source, tmp_path / "out") == 2
    assert (tmp_path / "out" / "set" / "deep" / "b.txt").read_bytes() == b"22"


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
def test_an_archive_that_leads_out_of_its_folder(name, tmp_path):
    source = archive(tmp_path / "a.zip", [("good.txt", b"1"), (name, b"2")])
    with refused(BadInput, where="a.zip", names="evil"):
        download.unpack(source, tmp_path / "deep" / "out")
    assert not (tmp_path / "evil.txt").exists() and list((tmp_path / "deep").iterdir()) == []


def test_archives_that_are_links_bombs_or_no_zip(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with refused(BadInput, where="a.zip", names="'link'"):
        download.unpack(archive(tmp_path / "a.zip", [(link, b"/etc/passwd")]), tmp_path / "out")
    with refused(BadInput, where="b.zip", names="1000 bytes"):
        download.unpack(archive(tmp_path / "b.zip", [("x", b"0" * 2000)]), tmp_path / "out", limit_bytes=1000)
    (tmp_path / "c.zip").write_bytes(b"no zip at all")
    with refused(BadInput, where="c.zip"):
        download.unpack(tmp_path / "c.zip", tmp_path / "out")
    damaged = bytearray(archive(tmp_path / "d.zip", [("x", b"abcdef" * 50)]).read_bytes())
    damaged[60] ^= 255
    (tmp_path / "d.zip").write_bytes(damaged)
    with refused(BadInput, where="d.zip"):
        download.unpack(tmp_path / "d.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_archives_whose_stream_is_damaged_or_whose_names_collide(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("a.txt", b"hello world " * 500)
    damaged = bytearray((tmp_path / "a.zip").read_bytes())
    damaged[40:60] = b"\xff" * 20
    (tmp_path / "a.zip").write_bytes(damaged)
    with refused(BadInput, where="a.zip"):
        download.unpack(tmp_path / "a.zip", tmp_path / "out")
    for names in (("a", "a/b"), ("a/b", "a"), ("a\\b", "a/b")):
        source = archive(tmp_path / "b.zip", [(name, b"1") for name in names])
        with refused(BadInput, where="b.zip", names="'a"):
            download.unpack(source, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip"]


def run(*words):
    return cli.main(["data", "fetch", *map(str, words)], "jetmask", VERBS)


def test_the_verb_lists_names_the_nearest_and_asks_for_the_licence(tmp_path, capsys):
    assert run() == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in fetch.SOURCES)
    assert run("andrewmwd") == 2
    assert "did you mean andrewmvd" in capsys.readouterr().err
    assert run("andrewmvd", "--to", tmp_path) == 2
    shown = capsys.readouterr().err
    assert "CC0" in shown and "--accept" in shown and not any(tmp_path.iterdir())


def test_what_must_be_placed_by_hand_is_said_and_then_taken(tmp_path, capsys):
    assert run("andrewmvd", "--to", tmp_path, "--accept") == 1
    shown = capsys.readouterr().err
    assert str(tmp_path / "face-mask-detection.zip") in shown and "kaggle.com" in shown and "Traceback" not in shown
    archive(tmp_path / "face-mask-detection.zip", [("annotations/a.xml", b"<annotation/>")])
    assert run("andrewmvd", "--to", tmp_path, "--accept", "--json") == 0
    got = json.loads(capsys.readouterr().out)
    assert got[0]["sha256"] == hashlib.sha256((tmp_path / "face-mask-detection.zip").read_bytes()).hexdigest()
    assert got[0]["checked"] is False
    assert (tmp_path / "face-mask-detection" / "annotations" / "a.xml").is_file()
    assert json.loads((tmp_path / "andrewmvd.fetched.json").read_text())["files"] == got


def test_the_verb_downloads_and_unpacks(server, tmp_path, monkeypatch, capsys):
    server.content = archive(tmp_path / "made.zip", [("top/data.yaml", b"names: [mask]")]).read_bytes()
    source = fetch.SOURCES["darun18"]._replace(downloads=(fetch.Download("darun18.zip", server.url),))
    monkeypatch.setitem(fetch.SOURCES, "darun18", source)
    assert run("darun18", "--to", tmp_path / "d", "--accept") == 0
    assert (tmp_path / "d" / "darun18" / "top" / "data.yaml").is_file()
    assert "next: jetmask data import " + str(tmp_path / "d") in capsys.readouterr().out
    asked = len(server.asked)
    assert run("darun18", "--to", tmp_path / "d", "--accept") == 0 and len(server.asked) == asked


def test_every_collection_says_its_page_licence_and_what_follows():
    for name, source in fetch.SOURCES.items():
        assert source.page.startswith("http") and len(source.licence) > 10 and source.accept and source.then, name
        assert all(d.url is None or d.url.startswith("https://") for d in source.downloads)
        assert all(d.sha256 is None or re.fullmatch("[0-9a-f]{64}", d.sha256) for d in source.downloads)
