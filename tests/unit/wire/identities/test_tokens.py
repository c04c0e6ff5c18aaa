import base64
import hashlib
import json
import traceback
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import IdentityError
from covey.wire.identities.tokens import JoinToken

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
def token(authority):
    return JoinToken("alpha", "node", "covey.example.org:7400", "[::1]:7401", authority.pem, bytes(range(32)), 1.8e9)


def text_of(data):
    return "covey1." + base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")


def data_of(text):
    body = text.removeprefix("covey1.")
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def test_a_token_is_one_word_and_read_back(token):
    text = token.encode()
    assert text.split() == [text]
    assert JoinToken.decode(text) == token
    assert token.secret_sha256 == hashlib.sha256(token.secret).hexdigest()


def test_one_of_several_uses_says_so_and_any_other_looks_as_before(token):
    shared = replace(token, uses=3)
    assert JoinToken.decode(shared.encode()) == shared
    assert data_of(shared.encode()) == data_of(token.encode()) | {"u": 3}
    assert token.allows("alpha")
    assert not token.allows("alpha-1")
    assert shared.allows("alpha-1")
    assert not shared.allows("alpha")


def test_copying_it_over_several_lines_does_no_harm(token):
    text = token.encode()
    assert JoinToken.decode(f"  {text[:70]}\n   {text[70:200]}\r\n{text[200:]}\n") == token


@pytest.mark.parametrize("form", ["TOKEN={}", "$ {}", "> {0}\r\n> {1}", "{0}=\r\n{1}", "“{}”", "export T='{}'\n"])
def test_what_is_pasted_with_it_does_no_harm(token, form):
    text = token.encode()
    assert JoinToken.decode(form.format(*([text[:76], text[76:]] if "{1}" in form else [text]))) == token


def test_it_does_not_show_its_secret(token):
    assert "secret" not in repr(token)
    assert repr(token.secret)[2:-1] not in repr(token)


def test_a_cut_token_is_never_taken(token):
    text = token.encode()
    for length in range(len(text)):
        with pytest.raises(IdentityError, match="join token"):
            JoinToken.decode(text[:length])


@pytest.mark.parametrize("character", ["!", "+", "/", "=", "é", "\0"])
def test_a_character_that_is_not_its_own_is_refused(token, character):
    text = token.encode()
    with pytest.raises(IdentityError, match="damaged"):
        JoinToken.decode(text[:100] + character + text[100:])


@given(st.text(max_size=200))
def test_garbage_is_refused(text):
    for attempt in (text, "covey1." + text):
        with pytest.raises(IdentityError, match="join token"):
            JoinToken.decode(attempt)


@given(VALUES)
def test_any_json_is_refused(data):
    with pytest.raises(IdentityError, match="damaged"):
        JoinToken.decode(text_of(data))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", "Alpha"),
        ("n", 5),
        ("r", "coordinator"),
        ("s", "no port"),
        ("e", "host:port"),
        ("e", "a b:1"),
        ("a", ""),
        ("a", "-----BEGIN CERTIFICATE-----\n"),
        ("k", "00"),
        ("k", "zz" * 32),
        ("k", None),
        ("x", float("nan")),
        ("x", 10**400),
        ("x", "soon"),
        ("x", "1.8e9"),
        ("x", True),
        ("x", None),
        ("e", "host:1\n"),
        ("e", "x host:1"),
        ("k", "0" * 62),
        ("z", 1),
        ("u", 0),
        ("u", 10_001),
        ("u", "3"),
        ("u", True),
    ],
)
def test_wrong_values_are_refused(token, field, value):
    data = data_of(token.encode())
    assert JoinToken.decode(text_of(data)) == token
    with pytest.raises(IdentityError, match="damaged"):
        JoinToken.decode(text_of({**data, field: value}))


def test_a_whole_number_is_a_time(token):
    assert JoinToken.decode(text_of({**data_of(token.encode()), "x": 1_800_000_000})) == token


@pytest.mark.parametrize("field", ["n", "r", "s", "e", "a", "k", "x"])
def test_every_field_is_needed(token, field):
    data = data_of(token.encode())
    del data[field]
    with pytest.raises(IdentityError, match="damaged"):
        JoinToken.decode(text_of(data))


def test_a_refusal_does_not_show_the_secret(token):
    for change in ({"k": token.secret.hex() + "00"}, {"x": "soon"}, {"n": token.secret.hex() + "!"}):
        with pytest.raises(IdentityError) as caught:
            JoinToken.decode(text_of({**data_of(token.encode()), **change}))
        assert token.secret.hex() not in "".join(traceback.format_exception(caught.value))


def test_deep_and_long_ones_are_refused():
    for body in (b"[" * 5000, b" " * 100_000):
        with pytest.raises(IdentityError, match="damaged"):
            JoinToken.decode("covey1." + base64.urlsafe_b64encode(body).decode())
