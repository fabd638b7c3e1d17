"""Who may look in."""

import time

import pytest

from jetson.web.access import COOKIE, Access
from jetson.web.http import Request

TOKEN = "0123456789abcdef0123"


def request(path="/api/state", method="GET", query=None, **headers):
    headers.setdefault("host", "127.0.0.1:8080")
    return Request(
        method, path, query or {}, {name.replace("_", "-"): value for name, value in headers.items()}, "127.0.0.1", True
    )


def status(guard, *args, **kwargs):
    refusal = guard.refuse(request(*args, **kwargs))
    return refusal.status if refusal is not None else 200


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
        ("camera.lan", 200),
    ],
)
def test_a_rebound_name_is_refused(host, code):
    assert status(Access(hosts=["Camera.lan"]), host=host) == code


def test_other_sites_are_refused():
    guard = Access()
    assert status(guard, origin="http://evil.example") == 403
    assert status(guard, origin="http://127.0.0.1:8080") == 200
    assert status(guard, origin="null") == 403
    assert status(guard, path="/stream.mjpg", sec_fetch_site="cross-site") == 403
    assert status(guard, path="/api/state", sec_fetch_site="cross-site") == 403
    for page in ("/", "/drift"):  # a link on a dashboard; what it loads it asks for itself
        assert status(guard, path=page, sec_fetch_site="cross-site") == 200


def test_the_one_time_address_may_be_a_link_in_a_message():
    guard = Access(TOKEN)
    link = request("/enter", query={"code": guard.code}, sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert guard.refuse(link).status == 200


def test_token_is_demanded_everywhere_but_health():
    guard = Access(TOKEN)
    for path in ("/", "/stream.mjpg", "/snapshot.jpg", "/api/state", "/api/events", "/metrics", "/page.js"):
        assert status(guard, path) == 401, path
    assert status(guard, "/healthz") == 200
    assert status(guard, authorization="Bearer " + TOKEN) == 200
    for wrong in ("Bearer x", "Basic " + TOKEN, TOKEN, "Bearer", "Bearer " + TOKEN + "x"):
        assert status(guard, authorization=wrong) == 401


def enter(guard, code):
    return guard.refuse(request("/enter", query={"code": code}))


def test_one_time_address_sets_a_cookie_once():
    guard = Access(TOKEN)
    code = guard.code
    assert enter(guard, "x").status == 403
    answer = enter(guard, code)
    cookie = answer.headers["Set-Cookie"]
    assert answer.status == 200 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    pair = cookie.split(";")[0]
    assert status(guard, cookie="other=1; " + pair) == 200
    assert enter(guard, code).status == 403 and guard.code != code
    # After a restart with the same token the cookie is still good; with another it is not.
    assert status(Access(TOKEN), cookie=pair) == 200
    assert status(Access(TOKEN + "x"), cookie=pair) == 401


def test_forged_and_old_cookies(monkeypatch):
    guard = Access(TOKEN)
    pair = enter(guard, guard.code).headers["Set-Cookie"].split(";")[0]
    name, value = pair.split("=")
    expires, nonce, signature = value.split(".")
    later = f"{int(expires) + 9}.{nonce}.{signature}"
    for forged in (later, "x", "..", value[:-1], "9" * 40 + "." + signature):
        assert status(guard, cookie=COOKIE + "=" + forged) == 401
    late = time.time() + 40 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: late)
    assert status(guard, cookie=pair) == 401


def test_codes_do_not_repeat():
    assert len({Access(TOKEN).code for _ in range(20)}) == 20
