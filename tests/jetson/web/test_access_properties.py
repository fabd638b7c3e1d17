"""Who may look in, for any users and any request: roles open more from one to the next, cookies are their own's."""

from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.web.access import Access
from jetson.web.http import Request
from jetson.web.users import OPERATOR, ROLES, SCRAPER, VIEWER, User

PATHS = [
    "/",
    "/api/state",
    "/metrics",
    "/snapshot.jpg",
    "/stream.mjpg",
    "/api/events",
    "/api/crops/0-1",
    "/api/x",
    "/a",
]
paths = st.one_of(st.sampled_from(PATHS), st.text("abc/.%", max_size=12).map(lambda text: "/" + text))
names = st.text("abcXYZ-_09", min_size=1, max_size=8)
tokens = st.text("abcdefghijklmnop0123456789-_", min_size=16, max_size=24)
crowds = st.lists(st.builds(User, names, st.sampled_from(ROLES), tokens), min_size=1, max_size=5).filter(
    lambda users: len({one.name for one in users}) == len({one.token for one in users}) == len(users)
)


def request(path, query=None, **headers):
    headers.setdefault("host", "127.0.0.1:8080")
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("GET", path, query or {}, fields, "127.0.0.1", True)


def opens(guard, path, **headers):
    refusal = guard.refuse(request(path, **headers))
    return refusal is None or refusal.status == 200


@given(paths, tokens)
@settings(max_examples=300, deadline=None)
def test_each_role_opens_what_the_lower_one_opens(path, token):
    by_role = {}
    for role in (SCRAPER, VIEWER, OPERATOR):
        guard = Access([User("one", role, token)])
        by_role[role] = opens(guard, path, authorization="Bearer " + token)
    assert by_role[OPERATOR] >= by_role[VIEWER] >= by_role[SCRAPER]
    assert by_role[SCRAPER] == (path in ("/metrics", "/healthz"))


@given(crowds, paths, st.one_of(st.text(max_size=30), tokens), st.sampled_from(["Bearer ", "bearer  ", "", "Basic "]))
@settings(max_examples=300, deadline=None)
def test_nothing_but_a_users_token_opens_anything(users, path, given_, scheme):
    if path == "/healthz" or given_.strip() in {one.token for one in users}:
        return
    assert not opens(Access(users), path, authorization=scheme + given_)
    assert not opens(Access(users), path, cookie=f"{Access(users).cookie}={given_}")


@given(crowds, st.data())
@settings(max_examples=100, deadline=None)
def test_a_cookie_is_one_users_of_one_runner_until_the_token_changes(users, data):
    guard, neighbour = Access(users, instance="8080"), Access(users, instance="8081")
    owner = data.draw(st.sampled_from(users))
    answer = guard.refuse(request("/enter", authorization="Bearer " + owner.token))
    assert answer is not None and answer.status == 200
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    assert guard.user(request("/", cookie=cookie)) == owner and neighbour.user(request("/", cookie=cookie)) is None
    assert guard.user(request("/", cookie=f"other=1; {cookie}; {neighbour.cookie}=x.y.z.a.b.c")) == owner
    place = data.draw(st.integers(len(guard.cookie) + 1, len(cookie) - 1))
    changed = cookie[:place] + ("a" if cookie[place] != "a" else "b") + cookie[place + 1 :]
    assert guard.user(request("/", cookie=changed)) is None
    guard.users = [one._replace(token=one.token + "x") if one == owner else one for one in users]
    assert guard.user(request("/", cookie=cookie)) is None
