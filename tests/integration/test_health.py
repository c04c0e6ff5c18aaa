"""`covey health` on real daemons: well, cut off, killed, renewed, and asked by strangers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from covey.testing.federation import Federation
from covey.testing.launch.forks import run_covey
from covey.wire.identities.authority import Authority
from covey.wire.identities.identity import tls_key_in

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Two nodes and a coordinator; each test leaves them running."""
    with Federation(tmp_path_factory.mktemp("health"), nodes=2) as made:
        yield made.start()


def health(folder, service="", **env):
    """The exit code, and what `covey health --json` says; its reason without --json is the one line of the error."""
    command = ["health", "--data-dir", folder, "--service", service, "--json"]
    done = run_covey(command, env={**os.environ, **env})
    said = json.loads(done.stdout) if done.stdout else {"status": "", "reason": done.stderr}
    assert said["reason"] in done.stderr
    assert done.stderr.count("\n") == done.returncode
    return done.returncode, said["status"], said["reason"]


WELL = (0, "SERVING", "")


def test_both_daemons_are_well(federation):
    for service in ("", "store"):
        assert health(federation.coordinator_dir, service) == WELL
    for service in ("", "session"):
        assert health(federation.node_dir(0), service) == WELL
    said = federation.cli("health", "--data-dir", federation.node_dir(1), "--timeout", "20s")
    assert said == "SERVING\n"
    assert health(federation.coordinator_dir, COVEY_HOME="/nowhere", http_proxy="http://127.0.0.1:1") == WELL


def test_services_that_a_daemon_does_not_have(federation):
    code, status, reason = health(federation.coordinator_dir, "session")
    assert (code, status) == (1, "SERVICE_UNKNOWN")
    assert "the coordinator has no service 'session'" in reason
    assert "the node has no service 'store'" in health(federation.node_dir(0), "store")[2]


def test_a_node_that_is_cut_off_is_well_and_has_no_session(federation):
    federation.stop_coordinator()
    try:
        assert "no daemon is running" in health(federation.coordinator_dir)[2]
        folder = federation.node_dir(0)
        federation.until(lambda: health(folder, "session")[1] == "NOT_SERVING", 60, "the session never ended")
        assert health(folder, "session") == (1, "NOT_SERVING", "the node's session is NOT_SERVING")
        assert health(folder) == WELL
    finally:
        federation.start_coordinator()
    federation.until(lambda: health(federation.node_dir(0), "session") == WELL, 60, "the session never came back")


def test_daemons_that_were_killed(federation):
    federation.kill_node(0)
    code, status, reason = health(federation.node_dir(0))
    assert (code, status) == (1, "UNREACHABLE")
    assert "the node does not answer at 127.0.0.1:" in reason
    assert "start it again: covey node start" in reason
    federation.kill_coordinator()
    assert "the coordinator does not answer at 127.0.0.1:" in health(federation.coordinator_dir)[2]
    federation.start_coordinator()
    federation.start_node(0)
    federation.wait_connected(2)
    assert health(federation.node_dir(0), "session") == health(federation.coordinator_dir, "store") == WELL


def test_a_daemon_that_hangs_is_not_waited_for(federation):
    federation.node(0).suspend()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "covey.cli.main", "health", "--timeout", "1s", "--data-dir", federation.node_dir(0)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert "does not answer" in done.stderr
    finally:
        federation.node(0).resume()
    federation.wait_connected(2)


def test_strangers_are_refused(federation, tmp_path):
    """Another node's identity, and an admin's, under the name of the node that is asked."""
    for stranger in (federation.node_dir(1) / "identity", federation.coordinator_dir / "admin"):
        folder = tmp_path / stranger.name
        shutil.copytree(stranger, folder / "identity")
        shutil.copy(federation.node_dir(0) / "identity" / "federation.json", folder / "identity")
        shutil.copy(federation.node_dir(0) / "node.json", folder)
        code, status, reason = health(folder)
        assert (code, status) == (1, "REFUSED")
        assert "only the node itself may ask" in reason
    shutil.copytree(federation.node_dir(1) / "identity", tmp_path / "wrong-port" / "identity")
    shutil.copy(federation.node_dir(0) / "node.json", tmp_path / "wrong-port")
    assert health(tmp_path / "wrong-port")[1] == "UNREACHABLE"  # another node's server is not taken for one's own


def test_a_stream_of_states_is_not_to_be_had(federation):
    """Who reads nothing of what it watches would be in the way of those who ask."""
    request = health_pb2.HealthCheckRequest(service="store")
    with channel_of(federation, federation.coordinator_dir / "admin") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            next(health_pb2_grpc.HealthStub(channel).Watch(request, timeout=20))
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_who_was_evicted_is_not_answered(federation, tmp_path):
    operate = ("--data-dir", federation.coordinator_dir)
    federation.cli("coordinator", "admin", "issue", "watcher", "--role", "auditor", "--to", tmp_path / "to", *operate)

    def ask():
        with channel_of(federation, tmp_path / "to") as channel:
            return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="store"), timeout=20)

    assert ask().status == health_pb2.HealthCheckResponse.SERVING
    federation.cli("node", "evict", "--yes", "watcher", *operate)
    with pytest.raises(grpc.RpcError, match="evicted") as caught:
        ask()
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_a_node_that_stops_takes_its_announcement_back(federation):
    federation.stop_node(1)
    assert not (federation.node_dir(1) / "node.json").exists()
    assert "no daemon is running" in health(federation.node_dir(1))[2]
    federation.start_node(1)
    federation.wait_connected(2)


def test_after_a_renewal_the_listener_has_the_new_certificate(federation):
    federation.stop_node(1)
    folder = federation.node_dir(1) / "identity"
    old = Authority.open(federation.coordinator_dir / "keys").issue(
        "n1", "node", tls_key_in(folder / "tls.key").public_key(), days=10
    )
    (folder / "tls.crt").write_bytes(old.pem)
    federation.stop_coordinator()
    with contextlib.closing(sqlite3.connect(federation.coordinator_dir / "covey.db")) as database, database:
        serial = f"{x509.load_pem_x509_certificate(old.pem).serial_number:x}"
        database.execute("UPDATE nodes SET certificate_serial = ? WHERE node = 'n1'", (serial,))
    federation.start_coordinator()
    node = federation.start_node(1)
    federation.until(lambda: "going on with a new certificate" in node.printed, 60, "it did not renew")
    federation.until(lambda: health(federation.node_dir(1), "session") == WELL, 60, "it did not come back")
    new = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    assert new.not_valid_after_utc.timestamp() > old.expires_at
    assert served_certificate(federation.node_dir(1)) == new


def test_a_coordinator_whose_database_is_away(tmp_path, postgres_server, postgres_database):
    with Federation(tmp_path, nodes=0, store_url=postgres_database) as federation:
        federation.start_coordinator()
        assert health(federation.coordinator_dir, "store") == WELL
        postgres_server.stop()
        try:
            code, status, reason = health(federation.coordinator_dir, "store")
            assert (code, status) == (1, "NOT_SERVING")
            assert "the coordinator's store is NOT_SERVING" in reason
            assert health(federation.coordinator_dir) == WELL
        finally:
            postgres_server.ensure_postgres_running()
        assert health(federation.coordinator_dir, "store") == WELL


def channel_of(federation, folder):
    address = json.loads((federation.coordinator_dir / "coordinator.json").read_text())["listen"]
    files = ((folder / name).read_bytes() for name in ("authority.crt", "tls.key", "tls.crt"))
    options = [("grpc.ssl_target_name_override", "coordinator.covey")]
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*files), options)


def served_certificate(data_dir):
    host, port = json.loads((data_dir / "node.json").read_text())["listen"].split(":")
    context = ssl.create_default_context(cafile=data_dir / "identity" / "authority.crt")
    context.load_cert_chain(data_dir / "identity" / "tls.crt", data_dir / "identity" / "tls.key")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port))) as plain,
        context.wrap_socket(plain, server_hostname="n1.node.covey") as secured,
    ):
        return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
