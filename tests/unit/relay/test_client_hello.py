"""The server name in what real TLS clients send, however it is cut, and in garbage."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.relay.client_hello import MAX_BYTES, Incomplete, NotTls, server_name_of


def hello_of(name):
    """The first message of Python's own TLS client."""
    context, incoming, outgoing = ssl.create_default_context(), ssl.MemoryBIO(), ssl.MemoryBIO()
    if name is None:
        context.check_hostname = False
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HELLO = hello_of("clinic-a.node.covey")


def test_the_name_is_found_whatever_follows():
    assert server_name_of(HELLO) == "clinic-a.node.covey"
    assert server_name_of(HELLO + b"more") == "clinic-a.node.covey"


@pytest.mark.parametrize("count", range(0, len(HELLO), 7))
def test_until_it_is_whole_more_has_to_come(count):
    with pytest.raises(Incomplete):
        server_name_of(HELLO[:count])


def test_a_message_may_be_spread_over_several_records():
    body = HELLO[5:]
    pieces = [body[start : start + 50] for start in range(0, len(body), 50)]
    records = b"".join(HELLO[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)
    assert server_name_of(records) == "clinic-a.node.covey"


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\x17\x03\x03\x00\x01x", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"]
)
def test_what_is_no_hello_is_known_at_once(data):
    with pytest.raises(NotTls):
        server_name_of(data)


def test_a_hello_without_a_name_and_one_that_never_ends_are_refused():
    with pytest.raises(NotTls):
        server_name_of(hello_of(None))
    with pytest.raises(NotTls):
        server_name_of(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(MAX_BYTES))


@given(st.binary(max_size=200), st.integers(0, len(HELLO) - 1))
def test_garbage_is_refused_in_words(data, place):
    for message in (data, HELLO[:place] + data, HELLO[:place] + data + HELLO[place + len(data) :]):
        try:
            assert isinstance(server_name_of(message), str)
        except ValueError:
            continue
