"""No address, however it is written, is shown with more than scheme, host and port."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jetson.capture import address, source
from jetson.errors import UsageError

LETTERS = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F), min_size=1, max_size=12)
SECRET = "Zq9Xv7Kw"


@settings(deadline=None, max_examples=200)
@given(LETTERS, LETTERS, st.sampled_from(["rtsp", "http", "https", "rtsps", "udp"]), st.integers(0, 5), st.booleans())
def test_a_secret_anywhere_but_in_the_host_is_not_shown(before, after, scheme, place, port):
    secret = before + SECRET + after
    host = "host" + (":554" if port else "")
    uri = [
        f"{scheme}://admin:{secret}@{host}/ch1",
        f"{scheme}://{secret}:pw@{host}/ch1",
        f"{scheme}://{host}/{secret}/ch1",
        f"{scheme}://{host}/ch1?x={secret}",
        f"{scheme}://{host}/ch1#{secret}",
        f"{scheme}://admin:x@{host}/{secret}",
    ][place]
    assert SECRET not in address.shown(uri)
    assert SECRET not in address.hide(f"cannot open {uri}: no", uri)
    assert SECRET not in address.hide(f"part {secret} of it", uri)
    try:
        parsed = source.parse(uri)
    except UsageError as error:
        assert SECRET not in str(error)
    else:
        assert SECRET not in repr(parsed) and SECRET not in parsed.label


@settings(deadline=None, max_examples=200)
@given(LETTERS, LETTERS)
def test_credentials_of_any_letters_come_through_whole(user, password):
    assume(":" not in user)
    made = address.Credentials(None, {"JETMASK_CREDENTIALS_CAM": f"{user}:{password}"})
    parsed = source.parse(made.fill("rtsp://{cam}@host:554/a"))
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(parsed.path)
    assert (unquote(parts.username), unquote(parts.password), parts.hostname) == (user, password, "host")
