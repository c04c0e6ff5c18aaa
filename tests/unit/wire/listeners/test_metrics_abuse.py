"""The metrics server against slow, silent, broken and too many clients."""

import contextlib
import socket
import ssl
import threading

import pytest
from prometheus_client import Counter
from structlog.testing import capture_logs

from covey.testing.launch.processes import wait_until
from covey.wire.identities.authority import Authority
from covey.wire.listeners import bounded_server, metrics_server
from covey.wire.listeners.bounded_server import MAX_CONNECTIONS, MAX_OF_ADDRESS, MAX_OF_LOOPBACK
from tests.unit.wire.listeners.metrics_clients import ANYWHERE, get, refused, where


def test_slow_clients_are_ended_and_others_are_served(serve):
    server = serve(deadline_s=1.0)
    silent = [socket.create_connection(where(server), timeout=20) for _ in range(2)]
    drip = socket.create_connection(where(server), timeout=20)
    drip.sendall(b"GET /met")
    assert get(server)[0] == 200
    for one in (*silent, drip):
        assert one.recv(100) == b""  # ended by the server
        one.close()


def test_who_sends_a_byte_now_and_then_is_ended_too(serve):
    server = serve(deadline_s=1.0)
    with socket.create_connection(where(server), timeout=20) as drip:

        def ended():
            try:
                drip.sendall(b"G")
            except OSError:
                return True
            return False

        assert wait_until(ended, 20.0)


def test_a_stalled_handshake_is_ended(serve, someone):
    server, context = serve(ANYWHERE, deadline_s=1.0), someone("watcher", "auditor")
    with socket.create_connection(where(server), timeout=20) as stalled:
        assert get(server, context=context)[0] == 200
        with contextlib.suppress(ConnectionResetError):
            assert stalled.recv(100) == b""


def test_strangers_do_not_keep_others_waiting(serve):
    """A connection without a handshake is ended long before its deadline."""
    server = serve(ANYWHERE, deadline_s=3600.0)
    with socket.create_connection(where(server), timeout=30) as silent, contextlib.suppress(ConnectionResetError):
        assert silent.recv(100) == b""
    # One byte now and then is no handshake either.
    with socket.create_connection(where(server), timeout=30) as drip:
        hello = b"\x16\x03\x01\x02\x00" + b"\x01" * 512
        sent = iter(hello)

        def ended():
            try:
                drip.sendall(bytes([next(sent)]))
            except OSError:
                return True
            return False

        assert wait_until(ended, 20.0)


@pytest.fixture
def own_address():
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        return probe.getsockname()[0]


@pytest.mark.parametrize("loopback", [True, False])
def test_the_number_of_connections_of_an_address_is_bounded(serve, someone, own_address, monkeypatch, loopback):
    monkeypatch.setattr(bounded_server, "HANDSHAKE_S", 60.0)
    server, context = serve(ANYWHERE, deadline_s=60.0), someone("watcher", "auditor")
    host, port = where(server)
    place, most = ((host, port), MAX_OF_LOOPBACK) if loopback else ((own_address, port), MAX_OF_ADDRESS)
    held = [socket.create_connection(place, timeout=20) for _ in range(most)]
    assert wait_until(lambda: sum(t.name == "scrape" for t in threading.enumerate()) == most, 10.0)
    with socket.create_connection(place, timeout=20) as extra:
        assert extra.recv(100) == b""
    if not loopback:
        assert get(server, context=context)[0] == 200  # of another address
    for one in held:
        one.close()


def test_the_number_of_connections_is_bounded(serve):
    server = serve(deadline_s=60.0)
    sources = [f"127.0.0.{2 + index // MAX_OF_LOOPBACK}" for index in range(MAX_CONNECTIONS)]
    held = [socket.create_connection(where(server), 20, source_address=(source, 0)) for source in sources]
    assert wait_until(lambda: sum(t.name == "scrape" for t in threading.enumerate()) == MAX_CONNECTIONS, 10.0)
    with socket.create_connection(where(server), timeout=20) as extra:
        assert extra.recv(100) == b""
    assert sum(thread.name == "scrape" for thread in threading.enumerate()) == MAX_CONNECTIONS
    for one in held:
        one.close()
    assert wait_until(lambda: not any(t.name == "scrape" for t in threading.enumerate()), 10.0)
    assert get(server)[0] == 200


def test_a_request_without_end_is_refused(serve):
    with socket.create_connection(where(serve()), timeout=20) as client:
        client.sendall(b"GET /" + b"x" * 70_000)
        assert b"414" in client.recv(100)


@pytest.mark.parametrize("poll_s", [0.05, 2.0])
def test_who_does_not_read_the_answer_is_ended_without_a_word(serve, registry, capfd, monkeypatch, poll_s):
    """More than the buffers of both sides hold; whether the server looks or writing times out: no word."""
    monkeypatch.setattr(metrics_server, "POLL_S", poll_s)
    big = Counter("covey_big", "By name.", ["name"], registry=registry)
    for index in range(200):
        big.labels(f"{index}-{'x' * 100_000}").inc()
    server = serve(deadline_s=0.5)
    with socket.create_connection(where(server), timeout=20) as greedy:
        greedy.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert wait_until(lambda: any(t.name == "scrape" for t in threading.enumerate()), 10.0)
        assert wait_until(lambda: not any(t.name == "scrape" for t in threading.enumerate()), 20.0)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("role", ["node", "admin"])
def test_a_header_is_no_certificate(serve, someone, role):
    answer = get(serve(ANYWHERE), context=someone("alpha", role), **{"covey.certificate": "x", "X-Role": "admin"})
    assert answer[0] == (200 if role == "admin" else 403)


def test_a_broken_collector_costs_one_scrape(serve, registry):
    class Broken:
        def collect(self):
            raise RuntimeError("no such thing")

    broken, server = Broken(), serve()
    registry.register(broken)
    with capture_logs() as logs:
        assert get(server)[0] == 500
    assert [(line["log_level"], "no such thing" in line["error"]) for line in logs] == [("warning", True)]
    registry.unregister(broken)
    assert get(server)[0] == 200


def test_a_value_that_cannot_be_written_is_put_into_the_log(serve, registry):
    Counter("covey_of", "By name.", ["name"], registry=registry).labels("\ud800").inc()
    server = serve()
    with capture_logs() as logs:
        assert get(server)[0] == 500
    assert [(line["log_level"], "UnicodeEncodeError" in line["error"]) for line in logs] == [("warning", True)]


def test_failed_handshakes_are_put_into_the_log_once_in_a_while(serve, someone, tmp_path):
    server = serve(ANYWHERE)
    context = someone("watcher", "admin", by=Authority.open(tmp_path / "foreign"))
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with capture_logs() as logs:
        for _ in range(3):
            assert refused(server, context)
    assert wait_until(lambda: not any(t.name == "scrape" for t in threading.enumerate()), 10.0)
    said = [line for line in logs if line["event"] == "TLS handshakes failed"]
    assert [(line["log_level"], line["client"], line["failures"]) for line in said] == [("warning", "127.0.0.1", 1)]
