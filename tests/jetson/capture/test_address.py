"""What of an address may be seen, and where names and passwords come from."""

import os

import pytest

from jetson.capture import address, child, gstreamer, source
from jetson.capture.address import Credentials
from jetson.errors import BadInput, JetmaskError

# Where real cameras take a password, and what people type.
SECRET = "geheim7x"
KINDS = {
    "user and password": f"rtsp://admin:{SECRET}@10.0.0.2:554/ch1",
    "in the path": f"rtsp://10.0.0.2:554/admin/{SECRET}/ch1",
    "pw": f"http://10.0.0.2:554/mjpeg?user=admin&pw={SECRET}",
    "key": f"rtsp://10.0.0.2:554/live?key={SECRET}",
    "auth": f"http://10.0.0.2:554/stream.mjpg?auth={SECRET}",
    "name and value": f"rtsp://10.0.0.2:554/user=admin_password={SECRET}_channel=1_stream=0.sdp?real_stream",
}


@pytest.mark.parametrize("uri", sorted(KINDS.values()))
def test_only_scheme_host_and_port_are_shown(uri):
    scheme = uri.partition(":")[0]
    parsed = source.parse(uri)
    assert parsed.label == address.shown(uri) == f"{scheme}://10.0.0.2:554"
    assert SECRET not in repr(parsed) and SECRET not in str(parsed) and "admin" not in repr(parsed)
    for text in (uri, f"cannot open '{uri}': 401", f"a {uri} b {uri}", f"[{uri}]", f"at {uri.upper()}"):
        assert SECRET not in address.scrub(text) and SECRET.upper() not in address.scrub(text)


@pytest.mark.parametrize(
    "uri, wanted",
    [
        (f"rtsp://admin:{SECRET}/x@10.0.0.2/ch1", "rtsp://…"),  # a '/' in the password
        (f"rtsp://admin:12/{SECRET}@10.0.0.2/ch1", "rtsp://…"),  # what looks like a port is its beginning
        (f"rtsp://admin:a {SECRET}@10.0.0.2/ch1", "rtsp://…"),
        (f"rtsp://admin:a#{SECRET}@10.0.0.2/ch1", "rtsp://…"),
        (f"rtsp://admin:a?{SECRET}@10.0.0.2/ch1", "rtsp://…"),
        (f"rtsp://admin:a@{SECRET}@10.0.0.2/ch1", "rtsp://10.0.0.2"),
        (f"rtsp://10.0.0.2/ch1@{SECRET}", "rtsp://…"),
        (f"rtsp://{SECRET}[10.0.0.2/ch1", "rtsp://…"),
        (f"admin:{SECRET}@10.0.0.2/ch1", "…"),
        (f"door=rtsp://admin:{SECRET}@10.0.0.2/ch1", "…"),
        (f"RTSP://admin:{SECRET}@[fe80::1]:554/", "rtsp://[fe80::1]:554"),
        (f"rtsp://{{cam1}}@nano.lan/{SECRET}", "rtsp://nano.lan"),
        ("udp://@:5000", "udp://:5000"),
        ("udp://:5000", "udp://:5000"),
        (f"made-up://{SECRET}/x", f"made-up://{SECRET}"),  # that is a host's name
        ("csi://0?flip=2", "csi://0?flip=2"),
        ("/videos/a@b.mp4", "/videos/a@b.mp4"),
        ("C:\\a@b", "…"),
        ("\udcff.mp4", "\ufffd.mp4"),
        ("", ""),
    ],
)
def test_what_is_not_clear_is_not_shown(uri, wanted):
    assert address.shown(uri) == wanted
    if wanted.endswith("…") and "://" in uri:
        assert SECRET not in address.scrub(f"cannot open {uri} now")


@pytest.mark.parametrize(
    "uri", sorted(KINDS.values()) + [f"rtsp://admin:{SECRET}/x@10.0.0.2/ch1", f"rtsp://a b:{SECRET}@h"]
)
def test_an_error_about_an_address_does_not_repeat_it(uri):
    for text in (uri, uri + " x", uri.replace("://", "://["), uri.replace("rtsp", "rtspx"), uri + "?transport=x"):
        try:
            source.parse(text)
        except JetmaskError as error:
            assert SECRET not in str(error)


@pytest.mark.parametrize("uri", sorted(KINDS.values()))
def test_what_a_program_says_about_an_address_is_told_without_it(uri):
    """FFmpeg and GStreamer repeat addresses whole, in parts and unquoted."""
    parsed = source.parse(uri)
    for text in (
        f"[rtsp @ 0x55] method DESCRIBE failed for {uri}: 401",
        f"Not Found (404), URL: {uri}, Redirect to: (NULL)",
        f"password '{SECRET}' refused",
        f"GET {uri.partition('10.0.0.2:554')[2]} failed",
        f"cannot open {parsed.path}",
    ):
        assert SECRET not in parsed.hide(text)
    assert parsed.hide("Could not connect to 10.0.0.2:554 (Connection refused)").startswith(
        "Could not connect to 10.0.0.2"
    )


def test_a_password_with_any_letter_is_hidden_as_it_is_quoted():
    parsed = source.parse("rtsp://me:se%20cr%2Fet@host/a")
    for text in ("se cr/et", "se%20cr%2Fet", "rtsp://me:se cr/et@host/a"):
        assert "cr" not in parsed.hide(f"wrong: {text}")


# -- credentials -----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "credentials"
    path.write_text(f"# of the cameras\n\ncam1 admin:{SECRET}\ncam-2  a b:p/w @#:é\n", encoding="utf-8")
    path.chmod(0o600)
    return str(path)


def test_credentials_from_a_file(file):
    made = Credentials(file, {})
    assert made.fill("rtsp://{cam1}@host/a") == f"rtsp://admin:{SECRET}@host/a" and made.warnings == []
    assert made.fill("rtsp://{cam-2}@host/a") == "rtsp://a%20b:p%2Fw%20%40%23%3A%C3%A9@host/a"
    assert made.fill("rtsp://host/{cam1.user}/{cam1.password}/1") == f"rtsp://host/admin/{SECRET}/1"
    for uri in ("/videos/{cam1}.mp4", "file:///{cam1}", "csi://0", "rtsp://host/{}"):
        assert made.fill(uri) == uri
    parsed = source.parse(made.fill("rtsp://{cam-2}@host/a"))
    assert parsed.path == "rtsp://a%20b:p%2Fw%20%40%23%3A%C3%A9@host/a"  # not quoted twice
    os.chmod(file, 0o644)
    assert "chmod 600" in Credentials(file, {}).warnings[0] and SECRET not in repr(Credentials(file, {}))


def test_credentials_from_elsewhere(tmp_path, file):
    (tmp_path / "gate").write_text("me:there\n")
    env = {
        "JETMASK_CREDENTIALS": file,
        "JETMASK_CREDENTIALS_SIDE_DOOR": "u:p:q",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    made = Credentials(None, env)
    assert (
        made.fill("rtsp://{cam1}@h").startswith("rtsp://admin:") and made.fill("rtsp://{gate}@h") == "rtsp://me:there@h"
    )
    assert made.fill("rtsp://{side-door}@h") == "rtsp://u:p%3Aq@h"
    assert Credentials(None, {"JETMASK_STATE": str(tmp_path)}).fill("rtsp://{cam1}@h").startswith("rtsp://admin:")
    left = address.without_credentials(dict(env, PATH="/bin"))
    assert left == {"CREDENTIALS_DIRECTORY": str(tmp_path), "PATH": "/bin"}
    with pytest.raises(BadInput) as told:
        made.fill(f"rtsp://{{nobody}}@h/{SECRET}")
    assert "nobody" in str(told.value) and "JETMASK_CREDENTIALS_NOBODY" in str(told.value)
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    "text", ["cam1", "cam1 admin", f"cam1 :{SECRET}", "a.b u:p", "cam1 a:b\ncam1 c:d", b"\xff u:p"]
)
def test_a_wrong_file_is_told_without_what_is_in_it(tmp_path, text):
    path = tmp_path / "credentials"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput) as told:
        Credentials(str(path), {})
    assert str(path) in str(told.value) and SECRET not in str(told.value)
    with pytest.raises(BadInput):
        Credentials(str(tmp_path / "absent"), {})


# -- the child -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("uri", sorted(KINDS.values()))
def test_no_address_is_on_a_command_line(monkeypatch, uri, there):
    """Whether GStreamer or OpenCV reads the camera."""
    monkeypatch.setattr(gstreamer, "have_gstreamer", lambda: there)
    monkeypatch.setattr(gstreamer, "have_element", lambda name: False)
    parsed = source.parse(uri)
    words, _ = child.command(parsed, 7, False, child.Attempt())
    assert not any(part in " ".join(words) for part in (SECRET, "admin", "10.0.0.2"))
    assert SECRET.encode() in child.instructions(parsed, 7, False, child.Attempt())


def test_a_child_does_not_inherit_the_passwords(monkeypatch):
    monkeypatch.setenv("JETMASK_CREDENTIALS_CAM1", "a:" + SECRET)
    assert not any(SECRET in value for value in child.environment().values())


@pytest.mark.parametrize(
    "uri, wanted",
    [
        (uri, False)
        for uri in ("rtsp://{cam1}@h/a", "rtsp://h:554/a", "csi://0", "a:b@c", "rtsp://me@h/a", "http://h/a?b=c:d")
    ]
    + [(uri, True) for uri in ("rtsp://me:x@h/a", "gate=http://me:x/y@h", "rtsp://:x@h")],
)
def test_a_password_in_an_address_is_noticed(uri, wanted):
    assert address.has_password(uri) == wanted
