"""Adversaries among real processes: loud, on record, and as harmful as they should be."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
NODES = 5
GROUP = (3, 4)


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("drills"), nodes=NODES) as made:
        made.start_coordinator()
        made.join()
        for index in range(NODES - len(GROUP)):
            made.start_node(index)
        made.wait_connected(NODES - len(GROUP))
        yield made


def attackers(federation, *options, under=()):
    """Both adversaries, started anew with these options."""
    for index in GROUP:
        if federation.nodes[index] is not None and federation.nodes[index].alive:
            federation.stop_node(index)
    for index in GROUP:
        federation.start_node(index, options=options, under=under)
    federation.wait_connected(NODES)


def run(federation, name, *, aggregation="", rounds=3):
    text = spec(name=name, rounds=rounds, min_nodes=NODES, training="local_epochs = 2", extra=aggregation)
    return federation.wait(federation.submit(text), timeout_s=120)


def log_of(federation, index):
    return federation.nodes[index].printed


def test_a_scaled_attack_ruins_the_mean_and_is_on_record(federation):
    attackers(federation, "--attack", "scaled", "--attack-option", "factor=-10")
    ruined = run(federation, "ruined")
    assert not ruined["metrics"]["accuracy"] > 0.4
    nodes = {node["node"]: node["drill"] for node in federation.admin.nodes()}
    assert nodes == {name: "scaled" if index in GROUP else "" for index, name in enumerate(federation.names)}
    shown = federation.cli("node", "show", "n3", "--data-dir", federation.coordinator_dir)
    assert "drill-joined" in shown
    listed = federation.cli("node", "list", "--data-dir", federation.coordinator_dir)
    assert "DRILL" in listed
    assert listed.count("scaled") == len(GROUP)
    assert "DRILL: this node is an adversary; its updates are the attack scaled" in log_of(federation, 3)
    assert log_of(federation, 3).count("DRILL: this update is an attack") == 3
    assert "DRILL" not in log_of(federation, 0)


def test_nan_is_rejected_before_any_rule(federation):
    attackers(federation, "--attack", "nan")
    run_id = federation.submit(spec(name="nan", rounds=1, min_nodes=NODES))
    federation.wait(run_id)
    verdicts = {u["node"]: (u["verdict"], u["reason"]) for u in federation.admin.round(run_id, 1)["updates"]}
    assert {node for node, (verdict, _) in verdicts.items() if verdict == "rejected"} == {"n3", "n4"}
    assert "non-finite" in verdicts["n3"][1]


def test_flipped_labels_train_another_model(federation):
    """Two of five on flipped labels: the same seed ends elsewhere than with honest nodes, and worse."""
    attackers(federation)
    honest = run(federation, "honest", rounds=2)
    attackers(federation, "--attack", "label-flip")
    flipped = run(federation, "flipped", rounds=2)
    assert flipped["metrics"]["accuracy"] < honest["metrics"]["accuracy"] - 0.02
    assert federation.admin.nodes()[3]["drill"] == "label-flip"


def test_a_group_shares_what_it_knows(federation, tmp_path):
    """Each puts its honest vector into the folder, finds the others' there, and drops those of old rounds."""
    where = ["--attack-group", str(tmp_path), "--attack-members", "n3,n4"]
    attackers(federation, "--attack", "ipm", "--attack-option", "epsilon=2", *where)
    run_id = federation.submit(spec(name="group", rounds=3, min_nodes=NODES))
    federation.wait(run_id)
    for number in (1, 2, 3):
        updates = {u["node"]: u for u in federation.admin.round(run_id, number)["updates"]}
        assert all(u["verdict"] == "accepted" for u in updates.values())
    assert sorted(path.name for path in (tmp_path / run_id).iterdir())[-1].startswith("3-")
    vectors = sorted(path.name for path in (tmp_path / run_id).rglob("*.f32"))
    assert vectors == ["n3.f32", "n3.f32", "n4.f32", "n4.f32"]
    assert "makes do without" not in log_of(federation, 3)


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root, who gives up a right for it")
def test_a_group_whose_workers_are_confined_as_in_containers_attacks_as_well(federation, tmp_path):
    """Without namespaces a worker cannot use what is made later beside what is hidden: its folders are there before."""
    where = ["--attack-group", str(tmp_path / "later" / "group"), "--attack-members", "n3,n4"]
    for index in GROUP:
        shutil.rmtree(federation.node_dir(index) / "drills", ignore_errors=True)
    setpriv = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    attackers(federation, "--attack", "ipm", "--attack-option", "epsilon=2", *where, under=setpriv)
    run_id = federation.submit(spec(name="confined", rounds=2, min_nodes=NODES))
    federation.wait(run_id)
    updates = {u["node"]: u for u in federation.admin.round(run_id, 2)["updates"]}
    assert {name: u["verdict"] for name, u in updates.items()} == dict.fromkeys(federation.names, "accepted")
    if "NOT confined" in log_of(federation, 3):
        pytest.skip("this system has no Landlock")
    assert "identity/ (Landlock)" in log_of(federation, 3)
    assert "DRILL: this update is an attack" in log_of(federation, 3)


def test_an_honest_return_is_on_record_too(federation):
    attackers(federation, "--attack", "sign-flip")
    attackers(federation)
    shown = federation.cli("node", "show", "n3", "--json", "--data-dir", federation.coordinator_dir)
    kinds = [event["kind"] for event in json.loads(shown)["events"]]
    assert kinds[0] == "drill-left"
    assert federation.admin.nodes()[3]["drill"] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attack", "tickle"], "no attack named 'tickle' is installed here; choose alie, constant"),
        (["--attack", "scaled", "--attack-option", "factr=1"], "attack.options.factr: unknown key; known keys: factor"),
        (["--attack", "scaled", "--attack-option", "factor"], "write KEY=VALUE"),
        (["--attack", "alie"], "needs others to learn from: give --attack-group and --attack-members"),
        (["--attack", "alie", "--attack-group", "/tmp"], "go together"),
        (["--attack", "alie", "--attack-group", "/tmp", "--attack-members", "n0,n1"], "this node, n3, must be one"),
        (["--attack-members", "n3"], "need --attack"),
    ],
)
def test_a_drill_that_cannot_work_does_not_start(federation, options, message):
    folder = federation.node_dir(3)
    command = ["node", "start", "--data-dir", folder, *options]
    with pytest.raises(Exception, match="exit code") as failure:
        federation.cli(*command)
    assert message in " ".join(str(failure.value).split())
