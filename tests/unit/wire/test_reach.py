"""Why a coordinator cannot be reached: on real sockets."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from covey.errors import CoveyError
from covey.testing.relay import Relay
from covey.wire import reach
from covey.wire.channels import listen, renewing_credentials, server_credentials, server_options
from covey.wire.identities.authority import Authority
from covey.wire.proxies import proxy_of, proxy_options


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def chatter() -> Iterator[int]:
    """A program that says something, and nothing of TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"SSH-2.0-elsewhere\r\n")
            except OSError:
                return

        threading.Thread(target=talk, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:7400", True),
        ("127.8.0.1:1", True),
        ("[::1]:7400", True),
        ("localhost:7400", True),
        ("10.0.0.1:7400", False),
        ("train.example.org:7400", False),
    ],
)
def test_a_proxy_is_never_for_loopback(address: str, loopback: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    assert (("grpc.enable_http_proxy", 0) in proxy_options(address)) is loopback
    assert str(proxy_of(address)) == ("None" if loopback else "http://proxy:3128 (https_proxy)")


def test_what_a_plain_connection_finds(chatter: int) -> None:
    assert "nothing listens there" in reach.why(f"127.0.0.1:{free_port()}")
    assert "is not known on this machine" in reach.why("no-such-name.invalid:7400")
    assert "does not speak TLS" in reach.why(f"127.0.0.1:{chatter}")


async def test_a_relay_before_a_coordinator_that_is_away_is_not_taken_for_another_program() -> None:
    async with Relay(f"127.0.0.1:{free_port()}") as relay:
        told = await reach.why_unreachable(relay.address)
    assert "the coordinator is stopping or away" in told
    assert "TLS" not in told


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_port_in_use_and_an_address_of_elsewhere_are_named(identity: Any, elsewhere: bool) -> None:
    credentials = server_credentials(identity("coordinator", "coordinator"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "192.0.2.1:7400" if elsewhere else f"127.0.0.1:{taken.getsockname()[1]}"
        problem = "Cannot assign requested address" if elsewhere else "Address already in use"
        with pytest.raises(CoveyError, match=f"^--listen {address} cannot be listened on: {problem}; end what uses it"):
            listen(grpc.aio.server(options=server_options()), address, credentials, "--listen")


@pytest.fixture
async def port(request: pytest.FixtureRequest, identity: Any) -> AsyncIterator[str]:
    """A coordinator's listener: `main`, `enrolment`, one whose certificate has `expired`, or that of a `node`."""
    own = identity("coordinator", "node" if request.param == "node" else "coordinator", days=request.param != "expired")
    mutual = request.param != "enrolment"
    server = grpc.aio.server(options=server_options())
    number = listen(server, "127.0.0.1:0", renewing_credentials(lambda: own, mutual=mutual), "--listen")
    await server.start()
    yield f"127.0.0.1:{number}"
    await server.stop(None)


@pytest.mark.parametrize(
    ("port", "enrolling", "told"),
    [
        ("main", False, "it is there and shakes hands"),
        ("main", True, "this is a coordinator's main port, and enrolling goes to its enrolment port"),
        ("enrolment", False, "this is a coordinator's enrolment port"),
        ("enrolment", True, "it is there and shakes hands"),
        ("expired", False, "this machine's clock says .*; set the clock that is wrong"),
        ("node", False, "is not a coordinator of Covey"),
    ],
    indirect=["port"],
)
async def test_the_port_of_another_end_a_wrong_clock_and_other_programs_are_named(
    port: str, enrolling: bool, told: str, authority: Any
) -> None:
    assert re.search(told, await asyncio.to_thread(lambda: reach.why(port, authority.pem, enrolling=enrolling)))


@pytest.mark.parametrize("port", ["main"], indirect=True)
async def test_another_federation_is_named(port: str, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other")
    assert "belongs to another federation" in await reach.why_unreachable(port, other.pem)
