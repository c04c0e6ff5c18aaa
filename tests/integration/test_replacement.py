"""A node that is lost for good is replaced: the newcomer takes its part of the data."""

from __future__ import annotations

import pytest

from covey.testing.federation import Federation
from tests.integration.specs import async_spec, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.mark.parametrize("waits", [False, True], ids=["comes later", "was there, without a part"])
def test_the_newcomer_takes_the_free_part(tmp_path, waits):
    policy = "rejoin_s = 1\nquorum = 1.0"
    with Federation(tmp_path, nodes=3) as federation:
        federation.start_coordinator()
        federation.join()
        for index in range(2):
            federation.start_node(index)
        federation.wait_connected(2)
        run = federation.submit(spec(rounds=400, policy=policy, extra='[data]\npartition = "iid"\nparts = 2'))
        federation.wait_round(run, 2)
        lost = {update["node"]: update["weight"] for update in federation.admin.round(run, 1)["updates"]}["n1"]
        if waits:
            federation.start_node(2)
            federation.until(lambda: declined(federation, run, "n2"), 60, "n2 was not asked")
        federation.kill_node(1)
        if not waits:
            federation.start_node(2)
        federation.until(lambda: took_part(federation, run, "n2"), 60, "n2 took no part")
        rounds = [federation.admin.round(run, one["round"])["updates"] for one in federation.rounds(run)[:-1]]
        together = [{u["node"]: u["weight"] for u in updates if u["verdict"] == "accepted"} for updates in rounds]
        assert {n: w for n, w in together[0].items() if n != "n0"} == {"n1": lost}
        assert [weights["n2"] for weights in together if "n2" in weights][:1] == [lost]
        assert all(len(weights) == 2 for weights in together)
        federation.cli("run", "stop", run, "--data-dir", federation.coordinator_dir)


def test_in_an_asynchronous_run_it_takes_it_too_and_gives_it_back(tmp_path):
    """The part is on record with the assignment: each node's weight, its number of examples, says which it is."""
    with Federation(tmp_path, nodes=3) as federation:
        federation.start_coordinator()
        federation.join()
        for index in range(2):
            federation.start_node(index)
        federation.wait_connected(2)
        text = async_spec(updates=100_000, min_nodes=1, rounds="rejoin_s = 1", every=0)
        run = federation.submit(text + '[data]\npartition = "dirichlet"\nalpha = 0.5\nparts = 2\n')
        own = {node: weight(federation, run, node) for node in ("n0", "n1")}
        assert own["n0"] != own["n1"]
        federation.start_node(2)
        federation.kill_node(1)
        assert weight(federation, run, "n2") == own["n1"]
        federation.kill_coordinator()
        federation.start_coordinator()
        seen = len(federation.rounds(run))
        federation.start_node(1)
        assert weight(federation, run, "n1", after=seen) == own["n1"]
        assert weight(federation, run, "n0", after=seen) == own["n0"]
        federation.until(lambda: declined(federation, run, "n2", seen), 60, "n2 has a part beside its owner")
        federation.cli("run", "stop", run, "--data-dir", federation.coordinator_dir)


def weight(federation, run, node, after=0):
    """Of a node's first accepted update in an assignment after this one."""
    found: list[float] = []

    def came() -> bool:
        numbers = [r["round"] for r in federation.rounds(run) if r["round"] > after and r["invited"] == [node]]
        updates = (update for number in numbers for update in federation.admin.round(run, number)["updates"])
        found.extend(update["weight"] for update in updates if update["verdict"] == "accepted")
        return bool(found)

    federation.until(came, 60, f"{node} took no part")
    return found[0]


def took_part(federation, run, node):
    rounds = federation.rounds(run)
    updates = federation.admin.round(run, rounds[-2]["round"])["updates"] if len(rounds) > 1 else []
    return any(update["node"] == node and update["verdict"] == "accepted" for update in updates)


def declined(federation, run, node, after=0):
    """Whether it was asked in a round or assignment after this one, and had no part."""
    numbers = [r["round"] for r in federation.rounds(run) if r["round"] > after and node in r["invited"]]
    updates = [update for number in numbers[-3:] for update in federation.admin.round(run, number)["updates"]]
    return any(update["node"] == node and update["reason"].startswith("no-part: ") for update in updates)
