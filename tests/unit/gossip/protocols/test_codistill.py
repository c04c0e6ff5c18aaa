"""Codistillation among peers: what it goes with, what a body is, and that nobody waits and nobody's model is mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from covey.errors import SpecError
from covey.gossip.protocols.runs import body_of, exchanges_in_words, policy_of, protocol_of, require_possible
from covey.spec import GossipSpec, parse_data
from covey.testing.protocols import averaged
from covey.testing.swarms import VirtualSwarm

COMPLETE = {"name": "complete"}


def run_of(options: dict[str, Any], **sections: Any) -> GossipSpec:
    gossip = {"steps": 6, "topology": COMPLETE, **sections.pop("gossip", {})}
    gossip["protocol"] = {"name": "codistill", "options": options}
    training = {"learning_rate": 0.1, "local_steps": 3, "batch_size": 8}
    fields = {"name": "run", "mode": "gossip", "seed": 7, "task": {"name": "digits"}, "training": training}
    spec = parse_data({**fields, **sections, "gossip": gossip})
    assert isinstance(spec, GossipSpec)
    return spec


@pytest.mark.parametrize(
    ("options", "sections", "text"),
    [
        ({"waits": True}, {}, r"gossip\.protocol\.options\.classes: say how many"),
        ({"classes": 10}, {}, r"gossip\.overlap: .* write 1 or more .* waits = true in"),
        ({"exchange": "checkpoints"}, {"gossip": {"overlap": 1}}, r"gossip\.overlap: a checkpoint is good for any"),
        ({"exchange": "checkpoints", "classes": 2}, {}, r"options\.classes: it is for .*leave it out"),
        ({"classes": 10, "waits": True}, {"training": {"local_epochs": 1}}, r"training\.local_steps: .*not epochs"),
        ({"classes": 10, "waits": True}, {"gossip": {"rate_correction": "elapsed"}}, r"correction: .*mixes nothing"),
        ({"classes": 10, "waits": True}, {"gossip": {"momentum": "local"}}, r"gossip\.momentum: .*mixes nothing"),
        ({"classes": 10, "waits": True}, {"gossip": {"outer": "slow-momentum"}}, r"gossip\.outer: .*mixes nothing"),
        ({"classes": 10, "waits": True}, {"exchange": {"codec": "int8"}}, r"exchange\.codec: .*leave it out"),
        ({"classes": 10, "waits": True}, {"gossip": {"topology": {"name": "measured"}}}, r"gossip\.topology: "),
        ({"classes": 10, "waits": True}, {"gossip": {"global_every": 2}}, r"gossip\.global_every: "),
        (
            {"exchange": "checkpoints"},
            {"task": {"name": "digits", "nodes": {"n1": {"hidden": 9}}}},
            r"task\.nodes: .*mixes or compares whole models",
        ),
    ],
)
def test_what_it_cannot_work_with_is_refused(options: Any, sections: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        require_possible(run_of(options, **sections))


def test_a_body_has_the_predictions_of_a_step_or_is_a_model() -> None:
    predictions, checkpoints = run_of({"classes": 10, "waits": True}), run_of({"exchange": "checkpoints"})
    assert body_of(predictions) == {"logits": 3 * 8 * 10 * 4, "samples": 3 * 8 * 8}
    assert body_of(checkpoints) == {}
    assert body_of(run_of({"classes": 4, "batch_size": 2}))["logits"] == 3 * 2 * 4 * 4
    for spec in (predictions, checkpoints, run_of({"classes": 10}, gossip={"overlap": 2})):
        require_possible(spec, ["a", "b"])
    named = protocol_of(predictions.gossip).method()
    assert named is not None
    assert (named.name, named.options) == ("codistill", {"classes": 10})
    nodes = {"name": "digits", "nodes": {"a": {"hidden": 9}}}
    require_possible(run_of({"classes": 10, "waits": True}, task=nodes), ["a", "b"])


def test_what_an_exchange_takes_is_said_in_bytes() -> None:
    names = ["a", "b", "c", "d"]
    checkpoints = exchanges_in_words(run_of({"exchange": "checkpoints"}), names, 1000)
    assert checkpoints.endswith("its model: of 4 nodes, a step takes at most 12 x 1000 = 12000 bytes")
    ring = run_of({"classes": 10, "waits": True}, gossip={"topology": {"name": "ring"}})
    assert "(logits, samples): of 4 nodes, a step takes at most 8 x 1152 = 9216 bytes" in exchanges_in_words(
        ring, names, 1
    )
    sgp = parse_data({"name": "run", "mode": "gossip", "task": {"name": "digits"}})
    assert isinstance(sgp, GossipSpec)
    assert exchanges_in_words(sgp, names, 1000) == ""


def test_overlap_says_how_old_predictions_are_and_waits_whether_anybody_does() -> None:
    for waits, expected in ((True, 2), (False, None)):
        policy = policy_of(run_of({"classes": 10, "waits": waits}, gossip={"overlap": 2}).gossip, 4)
        assert (policy.overlap, policy.weighs, policy.takes_late) == (expected, "receiver", True)


MODELS = {f"n{k}": np.full(3, float(k)) for k in range(3)}


@pytest.mark.parametrize("options", [{"exchange": "checkpoints"}, {"exchange": "checkpoints", "waits": True}])
def test_models_stay_what_they_are_and_each_body_is_had_once(options: dict[str, Any]) -> None:
    swarm = averaged(run_of(options), MODELS)
    assert {node.finished for node in swarm.nodes.values()} == {"completed"}
    for me, node in swarm.nodes.items():
        assert node.z.tolist() == MODELS[me.node].tolist()
    audit = swarm.audit()
    assert audit.is_exact
    assert audit.delivered > 0


@pytest.mark.parametrize("waits", [False, True])
def test_a_silent_peer_holds_up_only_those_that_wait(waits: bool) -> None:
    """The third node is down from the beginning, and nobody suspects it."""
    swarm = VirtualSwarm.of_run(run_of({"exchange": "checkpoints", "waits": waits}), MODELS)
    swarm.begin()
    first, second, third = swarm.nodes.values()
    third.crash()
    swarm.settle()
    assert [first.machine.step, second.machine.step] == ([0, 0] if waits else [6, 6])
    third.restart()
    swarm.settle()
    assert {node.machine.step for node in swarm.nodes.values()} == {6}
    assert swarm.audit().is_exact


def test_what_comes_late_or_early_is_taken() -> None:
    """Of nodes that do not wait: each body goes to the labour once, with the step in which it was sent."""
    swarm = VirtualSwarm.of_run(run_of({"exchange": "checkpoints"}), MODELS)
    swarm.begin()
    slow, *fast = swarm.nodes.values()
    taken: list[int] = []
    mix = slow.labour.mix

    def noted(moment: Any, state: Any, portions: Any, then: Any) -> None:
        taken.extend(piece.step for piece in portions)
        mix(moment, state, portions, then)

    slow.labour.mix = noted  # type: ignore[method-assign]
    while any(node.machine.step < 4 for node in fast):
        for _ in range(len(swarm.messages)):
            swarm.deliver()
        for node in fast:
            node.finish_work()
    assert slow.machine.step == 0
    swarm.settle()
    assert len(set(taken)) > 1
    assert max(taken) > 0  # from the future of a node that was at its first step
