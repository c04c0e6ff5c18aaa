"""What the page shows of a gossip run: edges and mass in units of a node's first, curves of each node."""

from __future__ import annotations

from dataclasses import replace

from covey.client.connection import Connection
from covey.client.reading.gossip_parts import GossipPart, GossipView
from covey.client.reading.gossip_steps import GossipStep
from covey.client.values import Run
from covey.gossip.audit import audit
from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.mass import ONE
from covey.ui.gossip import KEPT, MOST_CURVES, Steps, step_charts, view_json

ADA, BOB = Incarnation("ada", 1), Incarnation("bob", 1)
RUN = Run("id", "name", "gossip", "running", started_at=10.0)


def view(had: int) -> GossipView:
    ada, bob = Ledger(ONE // 2, ONE), Ledger(ONE + had, ONE)
    ada.out[BOB] = OutEdge(ONE // 2, 1, ONE // 2, 0)
    bob.into[ADA] = InEdge(had, 1)
    return GossipView((GossipPart("ada", "working", step=3, weight=0.5),), audit({ADA: ada, BOB: bob}))


def test_edges_and_mass_are_in_units_of_a_node_s_first():
    shown = view_json(view(ONE // 2))
    assert shown["edges"] == [
        {
            "from": "ada",
            "from_life": 1,
            "to": "bob",
            "to_life": 1,
            "given": 0.5,
            "batches": 1,
            "waiting": 0.5,
            "had": 0.5,
            "agrees": True,
        }
    ]
    assert (shown["mass"]["live"], shown["mass"]["minted"], shown["mass"]["exact"]) == (2.0, 2.0, True)
    assert (shown["parts"][0]["node"], shown["more_edges"]) == ("ada", 0)


def test_who_had_more_than_was_given_is_seen():
    shown = view_json(view(ONE))
    assert not shown["edges"][0]["agrees"]
    assert not shown["mass"]["exact"]
    assert "ada" in shown["mass"]["findings"][0]


def test_a_node_that_came_back_has_edges_of_its_own():
    bob, again = Ledger(2 * ONE, ONE), Incarnation("ada", 2)
    first, second = Ledger(0, ONE), Ledger(ONE // 2, ONE)
    first.out[BOB], second.out[BOB] = OutEdge(ONE, 3, ONE, 0), OutEdge(ONE // 2, 1, ONE // 2, 0)
    shown = view_json(GossipView((), audit({ADA: first, again: second, BOB: bob})))
    assert [(edge["from"], edge["from_life"], edge["batches"]) for edge in shown["edges"]] == [
        ("ada", 1, 3),
        ("ada", 2, 1),
    ]


def test_steps_of_a_few_runs_are_kept(source, monkeypatch):
    read = list[str]()

    def steps_of(self, run):
        read.append(run.run)
        return [step("ada", 0, 1.0)]

    monkeypatch.setattr(Connection, "gossip_steps", steps_of)
    steps = Steps(source)
    runs = [Run(f"run-{number}", "name", "gossip", "completed") for number in range(KEPT + 1)]
    for run in [*runs[:KEPT], *runs[:KEPT]]:
        assert len(steps.of(run)) == 1
    assert read == [run.run for run in runs[:KEPT]]
    steps.of(runs[KEPT])
    steps.of(runs[1])
    steps.of(runs[0])
    assert read[KEPT:] == [runs[KEPT].run, runs[0].run]
    steps.of(replace(runs[KEPT], state="failed"))
    assert read[-1] == runs[KEPT].run
    assert len(read) == KEPT + 3


def step(node: str, number: int, loss: float) -> GossipStep:
    return GossipStep(node, 1, number, 10.0 + number, 1.0, 0.0, 0.0, {"loss": loss})


def test_each_node_has_a_curve():
    steps = [step("ada", 0, 2.0), step("ada", 1, 1.0), step("bob", 0, 3.0)]
    drawn = step_charts(steps, RUN, "seconds", 100)
    assert [chart["name"] for chart in drawn["charts"]] == ["loss", "mass"]
    assert drawn["charts"][0]["series"] == [
        {"label": "ada", "x": [0.0, 1.0], "y": [2.0, 1.0]},
        {"label": "bob", "x": [0.0], "y": [3.0]},
    ]
    assert step_charts([], RUN, "rounds", 100)["charts"] == [{"name": "mass", "series": []}]


def test_of_many_nodes_the_first_are_drawn():
    steps = [step(f"node-{number:03}", 0, 1.0) for number in range(MOST_CURVES + 5)]
    drawn = step_charts(steps, RUN, "rounds", 100)
    assert (len(drawn["charts"][0]["series"]), drawn["nodes"]) == (MOST_CURVES, MOST_CURVES + 5)
