"""Whoever connects, however often and whether with a certificate or not, does not end the coordinator."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest

from covey.testing.federation import Federation

pytestmark = pytest.mark.processes
CONNECTIONS = 1500
THREADS = 4


def _knock(address: str, context: ssl.SSLContext | None, times: int) -> None:
    host, port = address.split(":")
    for _ in range(times):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5) as plain:
            if context is not None:
                context.wrap_socket(plain, server_hostname="coordinator.covey").close()


def test_many_handshakes_at_once_do_not_end_the_coordinator(tmp_path):
    with Federation(tmp_path / "federation", nodes=1) as federation:
        federation.start_coordinator()
        admin = federation.coordinator_dir / "admin"
        context = ssl.create_default_context(cafile=str(admin / "authority.crt"))
        context.check_hostname = False
        context.load_cert_chain(str(admin / "tls.crt"), str(admin / "tls.key"))
        context.set_alpn_protocols(["h2"])
        work = [
            threading.Thread(target=_knock, args=(federation.coordinator_address, tls, CONNECTIONS))
            for tls in [context, None] * (THREADS // 2)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        assert federation.coordinator is not None
        assert federation.coordinator.alive
        assert "running" in federation.cli("coordinator", "status", "--data-dir", federation.coordinator_dir)
