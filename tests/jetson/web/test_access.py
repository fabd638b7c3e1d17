"""Who may look in."""

import base64
import time

import pytest

from jetson.errors import BadInput, UsageError
from jetson.web import access, users
from jetson.web.access import Access
from jetson.web.http import Request
from jetson.web.users import User

TOKEN = "0123456789abcdef0123"
OWNER = User("owner", users.OPERATOR, TOKEN)
GUEST = User("guest", users.VIEWER, "guest-0123456789abcdef")
PROMETHEUS = User("prometheus", users.SCRAPER, "scrape-0123456789abcdef")
EVERYWHERE = ("/", "/stream.mjpg", "/snapshot.jpg", "/api/state", "/api/events", "/metrics", "/page.js", "/drift")


def request(path="/api/state", method="GET", query=None, **headers):
    headers.setdefault("host", "127.0.0.1:8080")
    return Request(
        method, path, query or {}, {name.replace("_", "-"): value for name, value in headers.items()}, "127.0.0.1", True
    )


def status(guard, *args, **kwargs):
    refusal = guard.refuse(request(*args, **kwargs))
    return refusal.status if refusal is not None else 200


def basic(name, token):
    return "Basic " + base64.b64encode(f"{name}:{token}".encode()).decode()


def test_on_the_machine_itself_no_token():
    assert status(Access()) == 200


@pytest.mark.parametrize(
    "host, code",
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("[::1]:8080", 200),
        ("192.168.1.5:80", 200),
        ("jet.localhost", 200),
        ("evil.example:8080", 421),
        ("", 421),
        ("[bad", 421),
        ("\xe4.example", 421),
        ("camera.lan", 200),
    ],
)
def test_a_rebound_name_is_refused(host, code):
    assert status(Access(hosts=["Camera.lan"]), host=host) == code


@pytest.mark.parametrize("host", ["nano.lan", "", "evil.example"])
def test_health_is_told_under_any_name(host):
    """Balancers and keepers ask by a name of their own, HTTP/1.0 ones by none."""
    for guard in (Access(), Access([OWNER])):
        assert status(guard, "/healthz", host=host, origin="http://elsewhere") == 200


def test_other_sites_are_refused():
    guard = Access()
    assert status(guard, origin="http://evil.example") == 403
    assert status(guard, origin="http://127.0.0.1:8080") == 200
    assert status(guard, origin="null") == 403
    for broken in ("http://[", "http://[::1", "\xe4", "http://", ""):
        assert status(guard, origin=broken) == 403
    # A proxy that hands on Host without its port; what the browser says of itself no page can set.
    assert status(guard, host="127.0.0.1", origin="http://127.0.0.1:8400", sec_fetch_site="same-origin") == 200
    assert status(guard, host="127.0.0.1", origin="http://127.0.0.1:8400", sec_fetch_site="same-site") == 403
    assert status(guard, path="/stream.mjpg", sec_fetch_site="cross-site") == 403
    assert status(guard, path="/api/state", sec_fetch_site="cross-site") == 403
    for page in ("/", "/drift"):  # a link on a dashboard; what it loads it asks for itself
        assert status(guard, path=page, sec_fetch_site="cross-site") == 200
    clip = "/api/v1/media/0123456789ab-01234567.avi"  # a link in a message may be opened; no other site shows it
    assert status(guard, path=clip, sec_fetch_site="cross-site", sec_fetch_dest="document") == 200
    assert status(guard, path=clip, sec_fetch_site="cross-site", sec_fetch_dest="image") == 403


def test_the_one_time_address_may_be_a_link_in_a_message():
    guard = Access([OWNER])
    link = request("/enter", query={"code": guard.code}, sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert guard.refuse(link).status == 200


def test_token_is_demanded_everywhere_but_health():
    guard = Access([OWNER])
    for path in EVERYWHERE:
        assert status(guard, path) == 401, path
        assert status(guard, path, authorization="Bearer " + TOKEN) == 200
        assert status(guard, path, authorization=basic("anybody", TOKEN)) == 200
    assert status(guard, "/healthz") == 200
    wrong = ("Bearer x", "Basic " + TOKEN, TOKEN, "Bearer", "Bearer " + TOKEN + "x", "Basic \xe4", "Basic", "Basic =")
    for text in wrong + (basic(TOKEN, ""), basic("", TOKEN + "x"), "Digest " + TOKEN, "Bearer \xe4"):
        assert status(guard, authorization=text) == 401, text


def test_what_knows_no_bearer_is_asked_for_a_password():
    guard = Access([OWNER])
    for path in ("/snapshot.jpg", "/stream.mjpg", "/metrics", "/enter"):
        assert guard.refuse(request(path)).headers["WWW-Authenticate"].startswith("Basic ")
        # But no box opens over the page, whose picture has only lost its cookie.
        refusal = guard.refuse(request(path, accept="image/avif,image/webp,*/*;q=0.8"))
        assert refusal.status == 401 and "Basic" not in refusal.headers["WWW-Authenticate"]
    for path in ("/", "/api/state"):
        assert "Basic" not in guard.refuse(request(path)).headers["WWW-Authenticate"]
    assert b'href="./enter"' in guard.refuse(request("/", accept="text/html,*/*")).body


@pytest.mark.parametrize(
    "user, path, code",
    [
        (OWNER, "/api/crops/0-1", 200),
        (GUEST, "/api/crops/0-1", 403),
        (GUEST, "/api/v1/media/0123456789ab-01234567.jpg", 200),
        (PROMETHEUS, "/api/v1/media/0123456789ab-01234567.jpg", 403),
        (GUEST, "/metrics", 200),
        (PROMETHEUS, "/metrics", 200),
        (PROMETHEUS, "/", 403),
        (PROMETHEUS, "/snapshot.jpg", 403),
        (PROMETHEUS, "/stream.mjpg", 403),
        (PROMETHEUS, "/api/state", 403),
        (PROMETHEUS, "/healthz", 200),
    ]
    + [(one, path, 200) for one in (OWNER, GUEST) for path in EVERYWHERE],
)
def test_roles(user, path, code):
    guard = Access([OWNER, GUEST, PROMETHEUS])
    assert status(guard, path, authorization="Bearer " + user.token) == code
    assert status(guard, path, authorization=basic(user.name, user.token)) == code
    answer = guard.refuse(request("/enter", authorization=basic(user.name, user.token)))
    assert answer.status == 200
    assert status(guard, path, cookie=pair(answer)) == code


def enter(guard, code):
    return guard.refuse(request("/enter", query={"code": code}))


def pair(answer):
    return answer.headers["Set-Cookie"].split(";")[0]


def test_one_time_address_sets_a_cookie_once():
    guard = Access([OWNER])
    code = guard.code
    assert enter(guard, "x").status == 403
    answer = enter(guard, code)
    cookie = answer.headers["Set-Cookie"]
    assert answer.status == 200 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert status(guard, cookie="other=\xc3\xa4; " + pair(answer)) == 200
    assert enter(guard, code).status == 403 and guard.code != code
    # After a restart with the same token the cookie is still good; with another it is not.
    assert status(Access([OWNER]), cookie=pair(answer)) == 200
    assert status(Access([OWNER._replace(token=TOKEN + "x")]), cookie=pair(answer)) == 401
    # Nor for another user of that name's role, nor when the user is no more.
    assert status(Access([GUEST]), cookie=pair(answer)) == 401


def test_the_one_time_address_is_an_operators():
    guard = Access([GUEST, OWNER])
    assert status(guard, "/api/crops/0-1", cookie=pair(enter(guard, guard.code))) == 200


def test_a_users_new_token_ends_that_users_cookies_alone():
    first = Access([OWNER, GUEST])
    cookies = [pair(first.refuse(request("/enter", authorization=basic("", one.token)))) for one in (OWNER, GUEST)]
    second = Access([OWNER, GUEST._replace(token="another-0123456789ab")])
    assert [status(second, cookie=cookie) for cookie in cookies] == [200, 401]


def test_two_runners_on_one_host_do_not_log_each_other_out():
    """A browser sends a host's cookies to every port."""
    first, second = Access([OWNER], instance="8080"), Access([GUEST], instance="8081")
    cookies = "; ".join(pair(enter(guard, guard.code)) for guard in (first, second))
    assert first.cookie != second.cookie
    assert status(first, cookie=cookies) == status(second, cookie=cookies) == 200
    assert Access([OWNER], instance="8080").cookie == first.cookie  # not another one in the jar after each restart


def test_forged_and_old_cookies(monkeypatch):
    guard = Access([OWNER])
    name, value = pair(enter(guard, guard.code)).split("=")
    wall, kernel, boot, nonce, owner, signature = value.split(".")
    later = f"{int(wall) + 9}.{int(kernel) + 9}.{boot}.{nonce}.{owner}.{signature}"
    other = f"{wall}.{kernel}.{boot}.{nonce}.guest.{signature}"
    for forged in (later, other, "x", "..", ".....", value[:-1], "9" * 40 + "." + signature, value + "\xe4"):
        assert status(guard, cookie=name + "=" + forged) == 401
        assert status(Access([OWNER, GUEST]), cookie=name + "=" + forged) == 401
    late = time.monotonic() + 40 * 24 * 3600
    monkeypatch.setattr(time, "monotonic", lambda: late)
    assert status(guard, cookie=name + "=" + value) == 401


def test_a_cookie_outlives_the_clock_that_is_set(monkeypatch):
    """A board without a battery starts in 1970 and is told the date later."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: 42.0)
    guard = Access([OWNER])
    cookie = pair(enter(guard, guard.code))
    monkeypatch.setattr(time, "time", lambda: now)
    assert status(guard, cookie=cookie) == 200
    # Of an earlier boot, whose kernel's clock began anew, only the date tells the age.
    monkeypatch.setattr(access, "_boot", lambda: "00000000")
    assert status(Access([OWNER]), cookie=cookie) == 401


@pytest.mark.parametrize(
    "prefix, path, meant, cookie_path",
    [
        ("/jetmask", "/api/state", "/api/state", "; Path=/jetmask/"),
        ("/jetmask/", "/jetmask/api/state", "/api/state", "; Path=/jetmask/"),
        ("/a/b", "/a/b/", "/", "; Path=/a/b/"),
        ("", "/api/state", "/api/state", ""),
        ("/jet; Domain=x", "/api/state", "/api/state", ""),
        ("/a/../b", "/a/../b/c", "/a/../b/c", ""),
        ("//evil.example", "/api/state", "/api/state", ""),
    ],
)
def test_below_a_path_of_a_proxy(prefix, path, meant, cookie_path):
    asked = request(path, x_forwarded_prefix=prefix)
    assert access.without_prefix(asked).path == meant
    guard = Access([OWNER])
    cookie = guard.refuse(request("/enter", query={"code": guard.code}, x_forwarded_prefix=prefix)).headers[
        "Set-Cookie"
    ]
    # None: the browser's own view of where /enter is. An address in the answer is relative.
    assert ("; Path=" in cookie) == bool(cookie_path) and cookie_path in cookie and "Domain" not in cookie


def test_cookies_over_tls_and_in_frames():
    def cookie(framed, proto):
        guard = Access([OWNER], framed=framed)
        asked = request("/enter", query={"code": guard.code}, x_forwarded_proto=proto)
        return guard.refuse(asked).headers["Set-Cookie"]

    assert "Secure; SameSite=Strict" in cookie(False, "https") and "Secure" not in cookie(False, "http")
    assert "SameSite=None" in cookie(True, "https") and "SameSite=Strict" in cookie(True, "http")


def test_only_named_sites_may_frame_the_page():
    plain = access.headers()
    assert "frame-ancestors 'none'" in plain["Content-Security-Policy"] and plain["X-Frame-Options"] == "DENY"
    framed = access.headers(["https://ha.lan:8123", "http://192.168.1.2"])
    assert framed["Content-Security-Policy"].endswith("frame-ancestors 'self' https://ha.lan:8123 http://192.168.1.2")
    assert "X-Frame-Options" not in framed
    for bad in ("ha.lan", "*", "https://a; script-src *", "https://a b", "javascript:x", "https://a/path", ""):
        with pytest.raises(UsageError):
            access.headers([bad])


def test_codes_do_not_repeat():
    assert len({Access([OWNER]).code for _ in range(20)}) == 20


# -- the files -------------------------------------------------------------------------------------------------------


def test_a_file_of_users(tmp_path):
    path = tmp_path / "users"
    path.write_text(f"# who\n\nanna operator {TOKEN}\n  ha viewer {GUEST.token}\n")
    found = users.read(str(path))
    assert [(one.name, one.role) for one in found] == [("anna", "operator"), ("ha", "viewer")]
    assert TOKEN not in repr(found)


@pytest.mark.parametrize(
    "text, line",
    [
        ("", None),
        ("# none", None),
        ("anna operator", 1),
        ("\nanna operator 0123456789abcdef x", 2),
        ("anna admin 0123456789abcdef", 1),
        ("an.na viewer 0123456789abcdef", 1),
        ("anna viewer tooshort", 1),
        ("anna viewer 0123456789abcdef\nanna viewer 1123456789abcdef", 2),
        ("anna viewer 0123456789abcdef\nben viewer 0123456789abcdef", 2),
        (b"\xff\xfe", None),
    ],
)
def test_a_wrong_file_of_users_is_told_by_its_line(tmp_path, text, line):
    path = tmp_path / "users"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput) as told:
        users.read(str(path))
    assert told.value.where == str(path) + (f", line {line}" if line else "")
    assert "0123456789abcdef" not in str(told.value)


def test_tokens_of_a_command_line(tmp_path):
    token, more = tmp_path / "token", tmp_path / "users"
    token.write_text(TOKEN + "\n")
    more.write_text(f"ha viewer {GUEST.token}\n")
    token.chmod(0o600)
    more.chmod(0o644)
    found, warnings = users.gather(str(token), str(more))
    assert [one.name for one in found] == ["owner", "ha"] and len(warnings) == 1 and str(more) in warnings[0]
    more.write_text(f"owner viewer {GUEST.token}\n")
    with pytest.raises(BadInput):
        users.gather(str(token), str(more))
    token.write_text("short")
    with pytest.raises(BadInput):
        users.gather(str(token), None)
    with pytest.raises(BadInput):
        users.gather(str(tmp_path / "absent"), None)
    assert users.gather(None, None) == ([], [])


def test_the_code_of_a_start_cannot_be_guessed():
    """128 bits, new at each start; without users there is nothing to enter, and none."""
    codes = [Access([OWNER]).code for _ in range(3)]
    assert [len(base64.urlsafe_b64decode(code + "==")) for code in codes] == [16, 16, 16] and len(set(codes)) == 3
    assert Access().code == ""


def change(guard, peer="127.0.0.1", **headers):
    headers.setdefault("content-type", "application/json")
    refusal = guard.refuse_change(request(method="PUT", **headers)._replace(peer=peer))
    return refusal.status if refusal is not None else 200


@pytest.mark.parametrize(
    "peer, headers, code",
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        ("192.168.1.9", {}, 403),
        ("fe80::1%eth0", {}, 403),
        ("127.0.0.1", {"x_forwarded_for": "192.168.1.9"}, 403),
        ("127.0.0.1", {"sec_fetch_site": "cross-site"}, 403),
    ],
)
def test_without_tokens_only_this_machine_changes_something(peer, headers, code):
    assert change(Access(), peer, **headers) == code


def test_of_users_an_operator_alone_changes_something():
    guard = Access([OWNER, GUEST])
    assert change(guard, authorization="Bearer " + OWNER.token) == 200
    assert change(guard, authorization="Bearer " + GUEST.token) == 403
    assert change(guard) == 403
