"""Whom a TLS caller wants: the server name in its first message (RFC 8446 section 4.1.2, RFC 6066). Pure."""

from __future__ import annotations

from dataclasses import dataclass

MAX_BYTES = 16 << 10
"""A first message that is longer is not a usual one."""
HANDSHAKE, CLIENT_HELLO, SERVER_NAME, HOST_NAME = 0x16, 1, 0, 0
RECORD_HEAD, HELLO_HEAD, RANDOM_AND_VERSION = 5, 4, 34


class NotTls(ValueError):
    """This is not the beginning of a TLS connection that names its server."""


class Incomplete(ValueError):
    """More of it has to come."""


@dataclass
class _Reader:
    data: bytes
    place: int = 0

    def take(self, count: int) -> bytes:
        if self.place + count > len(self.data):
            raise NotTls("a field ends after its message")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def field(self, size: int) -> bytes:
        return self.take(self.number(size))

    @property
    def is_over(self) -> bool:
        return self.place >= len(self.data)


def server_name_of(received: bytes) -> str:
    """The server name in the beginning of a TLS connection.

    Raises:
        Incomplete: The first message is not whole yet.
        NotTls: It never will be.
    """
    hello = _Reader(_first_message(received))
    hello.take(RANDOM_AND_VERSION)
    for size in (1, 2, 1):  # session, ciphers, compression
        hello.field(size)
    extensions = _Reader(hello.field(2))
    while not extensions.is_over:
        kind, content = extensions.number(2), extensions.field(2)
        if kind == SERVER_NAME:
            return _host_name(_Reader(content))
    raise NotTls("it names no server")


def _first_message(received: bytes) -> bytes:
    """The body of the ClientHello, which may be spread over several records."""
    body, place = b"", 0
    while True:
        head = received[place : place + RECORD_HEAD]
        if head and head[0] != HANDSHAKE:
            raise NotTls("not a TLS handshake")
        if len(head) < RECORD_HEAD:
            raise _more(received)
        size = int.from_bytes(head[3:5], "big")
        record = received[place + RECORD_HEAD : place + RECORD_HEAD + size]
        body, place = body + record, place + RECORD_HEAD + size
        if body and body[0] != CLIENT_HELLO:
            raise NotTls("not a ClientHello")
        wanted = HELLO_HEAD + int.from_bytes(body[1:4], "big")
        if len(body) >= HELLO_HEAD and len(body) >= wanted:
            return body[HELLO_HEAD:wanted]
        if len(record) < size or not size:
            raise _more(received)


def _more(received: bytes) -> ValueError:
    return NotTls("the first message is too long") if len(received) >= MAX_BYTES else Incomplete("more has to come")


def _host_name(names: _Reader) -> str:
    listed = _Reader(names.field(2))
    if listed.number(1) != HOST_NAME:
        raise NotTls("it names no host")
    try:
        return listed.field(2).decode("ascii")
    except UnicodeDecodeError as error:
        raise NotTls("the server's name is not ASCII") from error
