"""Asynchronous runs between real processes: staleness, retention, attack and defence, what the operator sees."""

from __future__ import annotations

import json

import pytest

from covey.storage.sql.store import open_store
from covey.testing.federation import Federation, FederationError
from tests.integration.specs import async_spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
NODES, ATTACKERS = 10, 3
DRILL = ["--attack", "scaled", "--attack-option", "factor=-10"]
UPDATES, DIVERGING = 900, 150


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("async"), nodes=3) as made:
        made.start()
        made.wait(made.submit(async_spec("warm-up", updates=3, min_nodes=3)))  # all evaluate at its end
        yield made


def outcomes(rounds):
    """How many of the updates that were decided on were accepted, by node: (accepted, decided)."""
    found = {}
    for one in rounds:
        if one["state"] == "decided":
            accepted, decided = found.get(one["invited"][0], (0, 0))
            found[one["invited"][0]] = accepted + one["accepted"], decided + 1
    return found


def test_nodes_work_at_their_own_pace_and_staleness_is_the_coordinators_record(federation):
    run = federation.submit(async_spec("pace", updates=30, min_nodes=3))
    shown = federation.wait(run)
    assert (shown["mode"], shown["updates_decided"], shown["updates"]) == ("async", 30, 30)
    assert shown["model_version"] == shown["rounds_committed"] == 30  # staleness-mean makes one of each update
    rounds = federation.rounds(run)
    decided = sorted((r for r in rounds if r["state"] == "decided"), key=lambda r: r["arrival"])
    assert [r["version"] for r in decided] == list(range(1, 31))
    assert set(outcomes(rounds)) == {"n0", "n1", "n2"}
    stale = {r["round"]: r["version"] - 1 - r["base_version"] for r in decided}
    assert max(stale.values()) > 0  # the others went on meanwhile
    for number in sorted(stale, key=stale.__getitem__)[::5]:
        detail = federation.admin.round(run, number)
        assert [(u["node"], u["verdict"]) for u in detail["updates"]] == [(detail["round"]["invited"][0], "accepted")]
        assert detail["updates"][0]["numbers"]["staleness"] == stale[number]
    assert not any(r["arrival"] for r in rounds if r["state"] == "failed" and r["reason"].startswith("lost"))


def test_what_is_shown_makes_sense(federation):
    run = federation.submit(async_spec("shown", updates=8, min_nodes=3, every=4))
    federation.wait(run)
    where = ["--data-dir", federation.coordinator_dir]
    assert "8 of 8 updates decided on" in federation.cli("run", "show", run, *where)
    listed = federation.cli("round", "list", run, *where)
    assert {"NODE", "OUTCOME", "BASE", "VERSION"} <= set(listed.split())
    assert "accepted" in listed
    assert "staleness" in federation.cli("round", "show", run, "1", *where)
    assert "every signature is valid" in federation.cli("run", "audit", run, *where)
    watched = federation.cli("run", "watch", run, *where)
    assert "update 1 of n" in watched
    printed = federation.cli("run", "replay", run, *where)
    assert "8 decisions" in printed
    assert federation.show(run)["model_sha256"] in printed


def test_files_go_when_nothing_refers_to_them(federation):
    text = async_spec("kept", policy="kardam", options="f = 0", updates=20, min_nodes=3)
    run = federation.submit(text.replace("updates = 100000", "updates = 2\nversions = 2"))
    federation.wait(run)
    where = ["--data-dir", federation.coordinator_dir]
    assert "is consistent" in federation.cli("store", "check", *where)
    with pytest.raises(FederationError, match=r"submitted with \[keep\] updates = as many rounds"):
        federation.cli("run", "replay", run, *where)
    store = open_store(f"sqlite:///{federation.coordinator_dir}/covey.db")
    kept = {update.round for n in range(1, 21) for update in store.updates(run, n) if update.kept and update.parts}
    last = store.last_step(run)
    assert last is not None
    pinned = set(last.pinned_updates)
    assert {19, 20} <= kept <= {19, 20} | pinned
    assert len(pinned) == 3  # one gradient a node
    store.close()


def test_a_node_that_goes_and_comes_back_gets_new_work(federation):
    federation.stop_node(2)
    federation.start_node(2, env={"COVEY_FAULTS": "assigned:1"})
    federation.wait_connected(3)
    run = federation.submit(async_spec("returns", updates=100000, min_nodes=2, rounds="rejoin_s = 1"))
    assert federation.node(2).wait(60) == -9
    federation.until(lambda: lost(federation, run), 60, "the lost node was not noticed")
    federation.start_node(2)
    last = federation.rounds(run)[-1]["round"]
    federation.until(
        lambda: any(r["round"] > last and r["accepted"] and r["invited"] == ["n2"] for r in federation.rounds(run)),
        60,
        "the node that came back did not deliver",
    )
    federation.cli("run", "stop", run, "--data-dir", federation.coordinator_dir)
    assert federation.wait(run, ("stopped",))["reason"].startswith("stopped by")


def lost(federation, run):
    return any(r["reason"].startswith("lost: no connection") for r in federation.rounds(run))


def test_too_few_nodes_wait_visibly_and_a_pause_too(federation):
    run = federation.submit(async_spec("waits", updates=6, min_nodes=4))
    federation.until(lambda: "4 nodes are needed" in federation.show(run)["reason"], 60, "nobody said what is missing")
    assert federation.rounds(run) == []
    federation.cli("run", "stop", run, "--data-dir", federation.coordinator_dir)
    federation.admin.pause(True)
    run = federation.submit(async_spec("paused", updates=6, min_nodes=3))
    federation.until(lambda: federation.show(run)["reason"] == "paused by the operator", 60, "it is not paused")
    federation.admin.pause(False)
    assert federation.wait(run)["updates_decided"] == 6


def test_a_drained_coordinator_ends_when_nothing_is_out_and_a_restart_goes_on(federation):
    run = federation.submit(async_spec("drained", updates=150, min_nodes=3))
    federation.until(lambda: federation.show(run)["updates_decided"] >= 6, 60, "no update was decided on")
    federation.coordinator.may_die = True
    assert federation.admin.drain()["state"] == "draining"
    assert federation.coordinator.wait(30) == 0
    where = ["--data-dir", federation.coordinator_dir]
    assert {one["state"] for one in json.loads(federation.cli("round", "list", run, "--json", *where))} == {"decided"}
    assert json.loads(federation.cli("run", "show", run, "--json", *where))["updates_decided"] < 150
    federation.start_coordinator()
    assert federation.wait(run)["updates_decided"] == 150
    assert "all 150 versions came out the same" in federation.cli("run", "replay", run, *where)


def test_an_evicted_node_has_no_part_any_more(federation):
    run = federation.submit(async_spec("evicts", updates=100000, min_nodes=2))
    federation.until(lambda: len(outcomes(federation.rounds(run))) == 3, 60, "not every node delivered")
    federation.node(2).may_die = True
    federation.admin.evict("n2")
    federation.until(lambda: settled(federation, run, "n2"), 60, "work of the evicted node is still open")
    ended = [one for one in federation.rounds(run) if one["invited"] == ["n2"]]
    assert all(one["state"] == "decided" or one["reason"] == "rejected: evicted" for one in ended)
    last = federation.rounds(run)[-1]["round"]
    federation.until(lambda: federation.rounds(run)[-1]["round"] > last + 10, 60, "the others did not go on")
    federation.admin.stop_run(run)
    assert [one for one in federation.rounds(run) if one["invited"] == ["n2"]] == ended
    assert "is consistent" in federation.cli("store", "check", "--data-dir", federation.coordinator_dir)


def settled(federation, run, node):
    return not any(one["state"] == "collecting" for one in federation.rounds(run) if one["invited"] == [node])


def test_a_held_update_of_an_evicted_node_goes_into_no_step(tmp_path):
    with Federation(tmp_path, nodes=4) as federation:
        federation.start()
        for index in (0, 1):  # expected back, so that the run begins; two nodes alone fill no buffer of three
            federation.stop_node(index)
        options = 'k = 3\nrule = { name = "median" }'
        run = federation.submit(async_spec("held", policy="buffered", options=options, updates=100000, min_nodes=3))
        federation.until(lambda: len(outcomes(federation.rounds(run))) == 2, 60, "two nodes did not deliver")
        assert federation.show(run)["model_version"] == 0
        federation.node(2).may_die = True
        federation.admin.evict("n2")
        federation.until(lambda: dropped(federation, run, "n2"), 60, "the held update was not dropped")
        for index in (0, 1):
            federation.start_node(index)
        federation.until(lambda: federation.show(run)["model_version"] >= 3, 60, "the others made no version")
        federation.admin.stop_run(run)
        rounds, where = federation.rounds(run), ["--data-dir", federation.coordinator_dir]
        assert not any(one["accepted"] or one["version"] for one in rounds if one["invited"] == ["n2"])
        assert {one["invited"][0] for one in rounds if one["version"] == 1} == {"n0", "n1", "n3"}
        assert "came out the same" in federation.cli("run", "replay", run, *where)
        assert "every signature is valid" in federation.cli("run", "audit", run, *where)
        assert "is consistent" in federation.cli("store", "check", *where)


def dropped(federation, run, node):
    """Whether an update of the node that the policy held was rejected for its eviction."""
    decided = [r["round"] for r in federation.rounds(run) if r["invited"] == [node] and r["state"] == "decided"]
    updates = [federation.admin.round(run, number)["updates"][0] for number in decided[-2:]]
    return any((one["verdict"], one["reason"]) == ("rejected", "evicted") for one in updates)


def learning_spec(name, policy, options="", updates=UPDATES):
    """Large steps: inverse dampening divides them by the staleness, which is about the number of nodes."""
    text = async_spec(
        name,
        policy=policy,
        options=options,
        updates=updates,
        min_nodes=NODES,
        every=updates // 3,
        rounds='short = "fail"\nmax_retries = 1',
    )
    return text.replace("learning_rate = 0.5", "learning_rate = 5.0")


def test_kardam_learns_where_three_of_ten_send_minus_ten_times_their_gradient(tmp_path):
    with Federation(tmp_path, nodes=NODES) as federation:
        federation.start()
        run = federation.submit(learning_spec("attack-free", "kardam", "f = 3"))
        attack_free = federation.wait(run, timeout_s=150)["metrics"]["accuracy"]
        for index in range(ATTACKERS):
            federation.stop_node(index)
            federation.start_node(index, options=DRILL)
        federation.wait_connected(NODES)
        run = federation.submit(learning_spec("defended", "kardam", "f = 3"))
        defended = federation.wait(run, timeout_s=150)
        print(f"accuracy: attack-free {attack_free:.3f}, defended {defended['metrics']['accuracy']:.3f}")
        assert defended["metrics"]["accuracy"] > max(0.8, attack_free - 0.03)
        rounds = federation.rounds(run)
        rates = {node: accepted / decided for node, (accepted, decided) in outcomes(rounds).items()}
        attackers = federation.names[:ATTACKERS]
        assert all(rates.get(node, 0.0) < 0.2 for node in attackers)
        assert all(rates[node] > 0.5 for node in federation.names[ATTACKERS:])
        rejected = next(r for r in rounds if r["rejected"] and r["invited"][0] in attackers)
        update = federation.admin.round(run, rejected["round"])["updates"][0]
        assert update["reason"]
        assert update["numbers"]["norm"] > 0
        run = federation.submit(learning_spec("undefended", "staleness-mean", updates=DIVERGING))
        undefended = federation.wait(run, ("completed", "failed"), timeout_s=150)
        assert undefended["state"] == "failed" or undefended["metrics"]["accuracy"] < 0.6
        if undefended["state"] == "failed":
            assert "diverged" in undefended["reason"]
