"""The commands against a real coordinator without nodes, and against what it leaves when it has stopped."""

import hashlib
import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from covey.cli.main import covey
from covey.cli.views.run_views import show_to_end
from covey.client import connect
from covey.client.errors import Unreachable
from covey.client.target import announced_address
from covey.testing.federation import Federation
from covey.wire.identities.identity import Identity

pytestmark = pytest.mark.processes

SPEC = """
name = "small"
[task]
name = "synthetic"
[task.options]
parameters = 10
[rounds]
count = 2
min_nodes = 2
"""


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("federation"), nodes=0) as federation:
        federation.start_coordinator()
        yield federation


@pytest.fixture
def call(coordinator):
    def invoke(*arguments, code=0):
        done = CliRunner().invoke(
            covey, list(map(str, arguments)), env={"COVEY_HOME": str(coordinator.coordinator_dir)}
        )
        assert done.exit_code == code, done.output
        return done

    return invoke


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "small.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def waiting_run(call, spec, coordinator):
    """A run that has its first model and waits for nodes."""
    run = call("run", "submit", spec).stdout.strip()
    coordinator.wait(run, ("running",))
    yield run
    call("run", "stop", run)


def read(done):
    return json.loads(done.stdout)


def test_status(call, coordinator):
    shown = read(call("coordinator", "status", "--json"))
    assert (shown["state"], shown["nodes_connected"]) == ("running", 0)
    assert shown["federation"] == Identity.load(coordinator.coordinator_dir / "admin").federation
    assert "running" in call("coordinator", "status").stdout


def test_status_names_the_active_runs(call, waiting_run):
    shown = read(call("coordinator", "status", "--json"))
    assert waiting_run in shown["active_runs"]
    assert shown["active_runs"][0] == shown["current_run"]
    lines = [" ".join(line.split()) for line in call("coordinator", "status").stdout.splitlines()]
    assert "active runs " + ", ".join(shown["active_runs"]) in lines


def test_pause_and_resume(call):
    assert read(call("coordinator", "pause", "--json"))["state"] == "paused"
    assert read(call("coordinator", "resume", "--json"))["state"] == "running"


def test_a_token_is_alone_on_standard_output(call, tmp_path):
    done = call("coordinator", "token", "--node", "hospital-a", "--expires", "5m")
    assert done.stdout.startswith("covey1.")
    assert done.stdout.count("\n") == 1
    assert "hospital-a" in done.stderr
    joined = read(call("node", "join", done.stdout.strip(), "--data-dir", tmp_path / "a", "--json"))
    assert joined["node"] == "hospital-a"
    assert (tmp_path / "a" / "node.toml").exists()
    nodes = read(call("node", "list", "--json"))
    assert ("hospital-a", "away") in [(node["node"], node["state"]) for node in nodes]
    again = call("node", "join", done.stdout.strip(), "--data-dir", tmp_path / "b", code=1)
    assert again.stderr.startswith("error: ")


def test_a_node_is_evicted_and_its_events_tell(call, tmp_path):
    token = call("coordinator", "token", "--node", "hospital-b").stdout.strip()
    call("node", "join", token, "--data-dir", tmp_path / "b")
    asked = call("node", "evict", "hospital-b", code=130).stderr
    assert "shut hospital-b out of the federation, for good? [y/N]" in asked
    assert read(call("node", "show", "hospital-b", "--json"))["state"] != "evicted"
    assert read(call("node", "evict", "--yes", "hospital-b", "--json"))["state"] == "evicted"
    shown = read(call("node", "show", "hospital-b", "--json"))
    assert shown["state"] == "evicted"
    assert {"enrolled", "node-evicted"} <= {event["kind"] for event in shown["events"]}
    assert "node-evicted" in call("node", "show", "hospital-b").stdout
    assert "no-such" in call("node", "evict", "--yes", "no-such", code=1).stderr


def test_studies_are_made_and_changed_by_command(call, coordinator):
    made = read(call("study", "create", "brain", "--node", "n1", "--admin", "alice", "--max-runs", "2", "--json"))
    assert (made["name"], made["nodes"], made["admins"], made["max_runs"]) == ("brain", ["n1"], ["alice"], 2)
    assert "[studies.brain]" in (coordinator.coordinator_dir / "studies.toml").read_text()
    call("study", "add", "brain", "--node", "n2", "--auditor", "alice")
    shown = read(call("study", "show", "brain", "--json"))
    assert (shown["nodes"], shown["admins"], shown["auditors"]) == (["n1", "n2"], [], ["alice"])
    assert "alice" in call("study", "remove", "brain", "--node", "n1", "--max-runs").stdout
    assert [(s["name"], s["nodes"], s["max_runs"]) for s in read(call("study", "list", "--json"))] == [
        ("brain", ["n2"], 0)
    ]
    assert "brain" in call("study", "list").stdout
    assert "covey study add brain" in call("study", "create", "brain", "--node", "n1", code=1).stderr
    assert call("study", "remove", "brain", "--whole").stdout == "there is no study brain any more\n"
    assert "no study 'brain'" in call("study", "show", "brain", code=1).stderr
    kinds = [event["kind"] for event in read(call("events", "--json"))]
    assert kinds.count("study-changed") == 4


def test_an_auditor_from_another_machine_may_look_and_not_touch(call, coordinator, tmp_path):
    issued = read(
        call("coordinator", "admin", "issue", "office", "--role", "auditor", "--to", tmp_path / "me", "--json")
    )
    assert issued == {"name": "office", "role": "auditor", "folder": str(tmp_path / "me")}
    assert stat.S_IMODE((tmp_path / "me" / "tls.key").stat().st_mode) == 0o600
    there = ["--server", coordinator.coordinator_address, "--identity", tmp_path / "me"]
    assert isinstance(read(call("run", "list", "--json", *there)), list)
    refused = call("coordinator", "pause", *there, code=1)
    assert "'office'" in refused.stderr
    assert "admin" in refused.stderr


def test_a_foreign_identity_is_not_let_in(call, coordinator, tmp_path):
    from covey.wire.identities.authority import Authority
    from covey.wire.identities.identity import signing_request, tls_key_in

    authority = Authority.open(tmp_path / "keys")
    signing_request(tmp_path / "me", "mallory")
    issued = authority.issue("mallory", "admin", tls_key_in(tmp_path / "me" / "tls.key").public_key())
    Identity.write(
        tmp_path / "me",
        name="mallory",
        role="admin",
        federation=authority.federation,
        server=coordinator.coordinator_address,
        coordinator_key=b"k" * 32,
        certificate=issued.pem,
        authority=authority.pem,
    )
    done = call("run", "list", "--server", coordinator.coordinator_address, "--identity", tmp_path / "me", code=1)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_folder_that_is_no_identity_is_said(call, tmp_path):
    done = call("run", "list", "--server", "127.0.0.1:1", "--identity", tmp_path, code=1)
    assert "is not an identity" in done.stderr
    assert "covey coordinator admin issue" in done.stderr


def test_a_run_is_submitted_shown_stopped_and_audited(call, spec, tmp_path):
    run = call("run", "submit", spec).stdout.strip()
    shown = read(call("run", "show", run, "--json"))
    assert (shown["name"], shown["rounds"], shown["rounds_committed"]) == ("small", 2, 0)
    assert shown["spec"]["task"]["options"] == {"parameters": 10}
    assert run in call("run", "list").stdout
    assert "small" in call("run", "show", run).stdout
    assert read(call("run", "stop", run, "--json"))["state"] == "stopped"
    watched = call("run", "watch", run, "--json", code=1)
    assert json.loads(watched.stdout.splitlines()[-1])["run"]["state"] == "stopped"
    assert f"run {run} is stopped" in watched.stderr
    report = read(call("run", "audit", run, "--json"))
    counts = dict.fromkeys(("commits", "updates", "statements", "pruned"), 0)
    assert report == {"run": run, "ok": True, **counts, "problems": [], "notes": []}
    call("coordinator", "admin", "issue", "bundles", "--role", "auditor", "--to", tmp_path / "me")
    written = read(call("run", "bundle", run, "--to", tmp_path / "small.bundle", "--json"))
    assert written["rows"] > 3
    elsewhere = call("run", "audit", tmp_path / "small.bundle", "--identity", tmp_path / "me", "--json")
    assert read(elsewhere) == report
    edited = (tmp_path / "small.bundle").read_text().replace('"name":"small"', '"name":"large"')
    (tmp_path / "edited.bundle").write_text(edited)
    found = call("run", "audit", tmp_path / "edited.bundle", "--identity", tmp_path / "me", code=1)
    assert 'the run: name is "large" on record, but was sealed as "small"' in found.stdout


def test_a_dry_run_says_what_a_submission_would_come_to(call, spec, tmp_path):
    before = read(call("run", "list", "--json"))
    checked = read(call("run", "submit", spec, "--dry-run", "--json"))
    assert (checked["spec"]["name"], checked["privacy"], checked["ready"]) == ("small", None, 0)
    assert (checked["model_bytes"] > 40, "it begins once 2 nodes are there" in checked["waits_for"]) == (True, True)
    private = tmp_path / "private.toml"
    private.write_text(f'{SPEC}[weights]\nby = "equal"\n[privacy]\nunit = "node"\nclip = 1.0\nnoise = 1.0\n')
    assert read(call("run", "submit", private, "--dry-run", "--json"))["privacy"]["unit"] == "node"
    shown = call("run", "submit", private, "--dry-run").stdout
    assert all(text in shown for text in ("could take it", "small", "epsilon"))
    private.write_text(SPEC.replace("synthetic", "synthetics"))
    assert "synthetics" in call("run", "submit", private, "--dry-run", code=1).stderr
    assert "leave --watch out" in call("run", "submit", spec, "--dry-run", "--watch", code=2).stderr
    assert read(call("run", "list", "--json")) == before


def test_what_the_coordinator_refuses_is_told(call, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(SPEC.replace("parameters", "parameter"))
    done = call("run", "submit", path, code=1)
    assert "task.options.parameter" in done.stderr
    assert "parameters" in done.stderr
    assert "no-such" in call("run", "show", "no-such", code=1).stderr


def test_the_first_model_is_exported_whole(call, waiting_run, tmp_path):
    exported = call("run", "export", waiting_run, "--to", tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    assert f"{len(data)} bytes" in exported.stdout
    again = ["--to", tmp_path / "again.safetensors", "--version", "0", "--json"]
    shown = read(call("run", "export", waiting_run, *again))
    assert (tmp_path / "again.safetensors").read_bytes() == data
    assert shown["bytes"] == len(data)
    assert hashlib.sha256(hashlib.sha256(data).digest()).hexdigest() == shown["digest"]
    call("run", "export", waiting_run, "--to", tmp_path / "no.safetensors", "--version", "99", code=1)
    assert sorted(os.listdir(tmp_path)) == ["again.safetensors", "m.safetensors"]


def test_backup_restore_and_reading_without_a_coordinator(call, spec, tmp_path):
    run = call("run", "submit", spec).stdout.strip()
    call("run", "stop", run)
    call("coordinator", "backup", "--to", tmp_path / "backup")
    call("coordinator", "backup", "--to", tmp_path / "backup", code=1)
    restored = tmp_path / "restored"
    call("coordinator", "restore", tmp_path / "backup", "--data-dir", restored)
    assert announced_address(restored) is None
    online, offline = (read(call("run", "show", run, "--json", *where)) for where in ((), ("--data-dir", restored)))
    assert online == offline
    assert read(call("node", "list", "--json")) == read(call("node", "list", "--json", "--data-dir", restored))
    assert read(call("round", "list", run, "--json", "--data-dir", restored)) == []
    audits = [read(call("run", "audit", run, "--json", *where)) for where in ((), ("--data-dir", restored))]
    assert audits[0] == audits[1]
    assert read(call("store", "check", "--data-dir", restored, "--json"))["ok"] is True
    call("store", "migrate", "--data-dir", restored)
    refused = call("run", "stop", run, "--data-dir", restored, code=1)
    assert "no coordinator is running" in refused.stderr


def test_a_file_that_is_gone_is_found_by_the_check(call, waiting_run, tmp_path):
    call("coordinator", "backup", "--to", tmp_path / "backup")
    gone = next((tmp_path / "backup" / "files" / "artifacts").iterdir())
    gone.unlink()
    checked = call("store", "check", "--data-dir", tmp_path / "backup", "--json", code=1)
    assert read(checked)["problems"] == [f"file {gone.name} is gone"]
    where = ["--to", tmp_path / "m.safetensors", "--data-dir", tmp_path / "backup"]
    refused = call("run", "export", waiting_run, *where, code=1)
    assert "the file of version 0 is gone" in refused.stderr
    assert not (tmp_path / "m.safetensors").exists()


def test_a_damaged_file_is_found_by_the_check_and_not_exported(call, waiting_run, tmp_path):
    backup = tmp_path / "backup"
    call("coordinator", "backup", "--to", backup)
    shown = read(call("run", "export", waiting_run, "--to", tmp_path / "m.safetensors", "--json"))
    offline = ["--to", tmp_path / "again.safetensors", "--data-dir", backup]
    assert read(call("run", "export", waiting_run, *offline, "--json"))["digest"] == shown["digest"]
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    damaged = backup / "files" / "artifacts" / shown["digest"]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    checked = call("store", "check", "--data-dir", backup, "--json", code=1)
    assert read(checked)["problems"] == [f"file {damaged.name} is damaged: its content has another digest"]
    assert "is not the announced one" in call("run", "export", waiting_run, *offline, code=1).stderr
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


class Recorder:
    """A view that keeps what it is told, and tells when it has seen something."""

    def __init__(self):
        self.states, self.losses, self.heard = [], [], threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def update(self, status):
        self.states.append(status.run.state)
        if status.run.state == "running":
            self.heard.set()

    def lost(self, error):
        self.losses.append(str(error))


def test_a_run_is_followed_across_a_restart_of_the_coordinator(tmp_path, spec):
    with Federation(tmp_path, nodes=0) as federation:
        federation.start_coordinator()
        run = federation.submit(spec.read_text())
        view = Recorder()
        with ThreadPoolExecutor(1) as thread, connect(federation.coordinator_dir) as connection:
            ended = thread.submit(show_to_end, connection, run, view)
            assert view.heard.wait(30)
            view.heard.clear()
            federation.restart_coordinator()
            assert view.heard.wait(30)
            federation.kill_coordinator()
            view.heard.clear()
            federation.start_coordinator()
            assert view.heard.wait(30)
            federation.ask(lambda admin: admin.stop_run(run))
            assert ended.result(30).state == "stopped"
        assert view.losses
        assert view.states[-1] == "stopped"


def test_following_what_never_answered_fails_at_once(tmp_path):
    with connect(tmp_path) as connection, pytest.raises(Unreachable, match="no coordinator is running"):
        show_to_end(connection, "any", Recorder())
