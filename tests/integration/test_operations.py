"""What operators do with real daemons: look, pause, drain, back up, restore, limit the disk, read the logs."""

from __future__ import annotations

import contextlib
import json
import re

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from covey.protos import admin_pb2, admin_pb2_grpc, coordinator_pb2, coordinator_pb2_grpc
from covey.testing.federation import Federation, FederationError
from covey.wire.identities.authority import COORDINATOR_NAME, Authority
from covey.wire.identities.identity import tls_key_in
from tests.integration.specs import BIG, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]
ROUNDS = 6
SLOW = {"task": "synthetic", "options": "train_seconds = 0.2"}
JSON_LOG = ["--log-format", "json"]
PAUSED = "paused by the operator"


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Two nodes and a coordinator, all of which log as JSON; each test leaves them running."""
    with Federation(tmp_path_factory.mktemp("operations"), nodes=2) as made:
        made.start_coordinator(options=JSON_LOG)
        made.join()
        for index in range(2):
            made.start_node(index, options=JSON_LOG)
        made.wait_connected(2)
        yield made


@pytest.fixture(scope="module")
def undisturbed(federation):
    return federation.wait(federation.submit(spec("undisturbed", rounds=ROUNDS, **SLOW)))["model_sha256"]


def submit_and_reach(federation, name, committed=1):
    run = federation.submit(spec(name, rounds=ROUNDS, **SLOW))
    federation.wait_round(run, committed)
    return run


@contextlib.contextmanager
def no_round_ends(federation):
    """For as long as a node stands still, whatever a command takes; the round that is open ends after that."""
    federation.node(1).suspend()
    try:
        yield
    finally:
        federation.node(1).resume()


def complete(federation, run, undisturbed):
    assert federation.wait(run)["model_sha256"] == undisturbed
    rounds = [(r["round"], r["state"], r["accepted"]) for r in federation.rounds(run)]
    assert rounds == [(number, "committed", 2) for number in range(1, ROUNDS + 1)]


def operate(federation, *command):
    return json.loads(federation.cli(*command, "--data-dir", federation.coordinator_dir, "--json"))


# -- looking


@pytest.fixture
def channel(federation):
    """Opens channels with our authority trusted, with or without a certificate; closes them."""
    opened = []

    def connect(address, identity=None):
        files = ("tls.key", "tls.crt") if identity else ()
        shown = [(identity / name).read_bytes() for name in files]
        trusted = (federation.coordinator_dir / "admin" / "authority.crt").read_bytes()
        credentials = grpc.ssl_channel_credentials(trusted, *shown)
        options = [("grpc.ssl_target_name_override", COORDINATOR_NAME)]
        opened.append(grpc.secure_channel(address, credentials, options))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def health(channel):
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)


@pytest.mark.parametrize("who", ["admin", "node"])
def test_the_health_service_answers_whoever_has_a_certificate(federation, channel, who):
    identity = federation.coordinator_dir / "admin" if who == "admin" else federation.node_dir(0) / "identity"
    reply = health(channel(federation.coordinator_address, identity))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_without_a_certificate_nobody_gets_past_the_handshake(federation, channel):
    with pytest.raises(grpc.RpcError) as refused:
        health(channel(federation.coordinator_address))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


def test_the_enrolment_listener_serves_enrolment_only(federation, channel):
    there = channel(federation.enrol_address)
    calls = [
        lambda: health(there),
        lambda: admin_pb2_grpc.AdminStub(there).Status(admin_pb2.StatusRequest(), timeout=10),
        lambda: coordinator_pb2_grpc.CoordinatorStub(there).Renew(coordinator_pb2.RenewRequest(), timeout=10),
        lambda: next(coordinator_pb2_grpc.CoordinatorStub(there).Session(iter(()), timeout=10)),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as refused:
        coordinator_pb2_grpc.EnrolmentStub(there).Enrol(coordinator_pb2.EnrolRequest(), timeout=10)
    assert refused.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)


def test_a_good_node_checks_itself(federation):
    task = ("--task", "synthetic", "--json")
    findings = json.loads(federation.cli("node", "check", "--data-dir", federation.node_dir(0), *task))
    assert [(f["what"], f["ok"]) for f in findings] == [
        ("identity", True),
        ("coordinator", True),
        ("worker", True),
        ("task synthetic", True),
    ]
    assert "identity/" in findings[2]["text"]
    assert "examples" in findings[3]["text"]
    assert not any(f["skipped"] for f in findings)
    assert federation.coordinator_address in findings[1]["text"]


def test_a_node_says_before_a_run_that_its_policy_forbids_it(federation, tmp_path):
    wanted = tmp_path / "run.toml"
    wanted.write_text(spec("forbidden", task="my_package.tasks:Tumours"))
    with pytest.raises(FederationError, match="exit code 1") as failed:
        federation.cli("node", "check", "--data-dir", federation.node_dir(0), "--spec", wanted)
    text = " ".join(str(failed.value).split())
    assert "FAIL task my_package.tasks:Tumours: task 'my_package.tasks:Tumours' is not allowed on this node" in text
    assert "[policy] allow_paths in node.toml" in text
    assert "ok identity" in text


@pytest.mark.parametrize("who", ["node", "coordinator"])
def test_a_second_daemon_on_a_data_directory_is_refused_in_words(federation, who):
    folder = federation.node_dir(0) if who == "node" else federation.coordinator_dir
    ports = ("--listen", "127.0.0.1:0", "--enrol-listen", "127.0.0.1:0") if who == "coordinator" else ()
    with pytest.raises(FederationError, match="exit code 1") as failed:
        federation.cli(who, "start", "--data-dir", folder, *ports)
    holder = federation.pids["n0" if who == "node" else "coordinator"]
    said = " ".join(str(failed.value).split())
    assert f"is in use by another daemon (process {holder}); stop that one, or give this {who} a --data-dir" in said


def test_training_is_seen_while_it_lasts(federation):
    run = federation.submit(spec("watched", rounds=1, training="local_epochs = 400"))
    where = ("--data-dir", federation.coordinator_dir)
    lines = [json.loads(line) for line in federation.cli("run", "watch", run, "--json", *where).splitlines()]
    assert lines[-1]["run"]["state"] == "completed"
    working = [node for line in lines if line["run"]["state"] == "running" for node in line["nodes"]]
    training = [node for node in working if node["phase"] == "training" and node["step"] > 0]
    assert {node["node"] for node in training} == {"n0", "n1"}
    assert any(0 < node["seconds"] < 60 for node in training)


# -- pausing and draining


def test_a_pause_opens_no_round_and_survives_a_restart(federation, undisturbed):
    run = submit_and_reach(federation, "paused")
    with no_round_ends(federation):
        assert operate(federation, "coordinator", "pause")["state"] == "paused"
    federation.until(lambda: federation.show(run)["reason"] == PAUSED, 30, "the run does not say that it is paused")
    committed = federation.show(run)["rounds_committed"]
    assert committed < ROUNDS
    assert len(federation.rounds(run)) == committed
    federation.restart_coordinator(options=JSON_LOG)
    federation.wait_connected(2)
    assert operate(federation, "coordinator", "status")["state"] == "paused"
    federation.until(lambda: federation.admin.status()["current_run"] == run, 30, "the run was not taken up")
    assert federation.show(run)["reason"] == PAUSED
    assert len(federation.rounds(run)) == committed
    assert operate(federation, "coordinator", "resume")["state"] == "running"
    complete(federation, run, undisturbed)


def test_a_drained_coordinator_ends_between_two_rounds(federation, undisturbed):
    run = submit_and_reach(federation, "drained")
    federation.coordinator.may_die = True
    with no_round_ends(federation):
        assert operate(federation, "coordinator", "drain")["state"] == "draining"
    assert federation.coordinator.wait(30) == 0
    shown = operate(federation, "run", "show", run)
    states = [r["state"] for r in operate(federation, "round", "list", run)]
    assert shown["state"] == "interrupted"
    assert 1 <= shown["rounds_committed"] < ROUNDS
    assert states == ["committed"] * shown["rounds_committed"]
    federation.start_coordinator(options=JSON_LOG)
    complete(federation, run, undisturbed)


# -- saving


def test_a_backup_made_in_mid_run_goes_on_where_it_was_made(federation, undisturbed, tmp_path):
    run = submit_and_reach(federation, "backed-up", committed=2)
    with no_round_ends(federation):
        made = operate(federation, "coordinator", "backup", "--to", tmp_path / "backup")
    assert made["bytes"] > 0
    saved = json.loads(federation.cli("run", "show", run, "--json", "--data-dir", tmp_path / "backup"))
    assert 2 <= saved["rounds_committed"] < ROUNDS
    federation.wait_round(run, saved["rounds_committed"] + 1)  # this round will be lost with the disk
    federation.kill_coordinator()
    federation.coordinator_dir.rename(tmp_path / "lost")
    federation.cli("coordinator", "restore", tmp_path / "backup", "--data-dir", federation.coordinator_dir)
    federation.start_coordinator(options=JSON_LOG)
    complete(federation, run, undisturbed)
    assert operate(federation, "run", "audit", run)["ok"]


# -- limits


def test_a_quota_that_is_too_small_is_said_and_waited_for(federation):
    federation.restart_coordinator(options=[*JSON_LOG, "--quota", "40MB"])
    federation.wait_connected(2)
    run = federation.submit(spec("quota", rounds=2, **BIG))
    # No room, after a model and two updates, for the next model.
    federation.until(
        lambda: "exceed the quota of 40000000 bytes" in federation.show(run)["reason"],
        30.0,
        "the run did not say what it waits for",
    )
    federation.restart_coordinator(options=JSON_LOG)
    federation.wait_connected(2)
    assert federation.wait(run)["rounds_committed"] == 2


def test_an_expired_certificate_is_explained_by_the_node_itself(federation):
    federation.stop_node(1)
    folder = federation.node_dir(1) / "identity"
    good = (folder / "tls.crt").read_bytes()
    authority = Authority.open(federation.coordinator_dir / "keys")
    expired = authority.issue("n1", "node", tls_key_in(folder / "tls.key").public_key(), days=0)
    (folder / "tls.crt").write_bytes(expired.pem)
    try:
        node = federation.start_node(1, options=JSON_LOG)
        node.may_die = True
        assert node.wait(30) == 1
        said = json.loads(node.tail(1))
        assert said["error"].startswith("the certificate of 'n1' expired at ")
        assert said["error"].endswith("join again with a new token")
        with pytest.raises(FederationError, match="FAIL  identity: the certificate of 'n1' expired at"):
            federation.cli("node", "check", "--task", "synthetic", "--data-dir", federation.node_dir(1))
    finally:
        (folder / "tls.crt").write_bytes(good)
        federation.start_node(1, options=JSON_LOG)
    federation.wait_connected(2)


# -- after all that

GRPC_LINE = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d")
"""What gRPC's own C++ core writes to standard error."""


def test_every_line_of_every_log_is_a_json_object(federation, undisturbed):
    events = {}
    for daemon in federation.daemons():
        text = [line for line in daemon.log.read_text().splitlines() if not GRPC_LINE.match(line)]
        lines = [json.loads(line) for line in text]
        assert all({"event", "level", "timestamp"} <= set(line) for line in lines)
        events[daemon.name] = {line["event"] for line in lines}
    assert "round committed" in events["coordinator"]
    assert "update delivered" in events["n0"] & events["n1"]


def test_the_record_is_consistent(federation, undisturbed):
    assert federation.stop_coordinator() == 0
    checked = operate(federation, "store", "check")
    assert checked["ok"]
    assert checked["problems"] == []
    federation.start_coordinator(options=JSON_LOG)
    federation.wait_connected(2)


def test_a_node_that_runs_does_not_leave(federation):
    """Its daemon has the keys in memory, and would stay a member."""
    folder = federation.node_dir(1)
    with pytest.raises(FederationError, match=f"n1 cannot leave while its daemon runs: {folder} is in use"):
        federation.cli("node", "leave", "--data-dir", folder)
    assert (folder / "identity").is_dir()
    assert federation.node(1).alive
