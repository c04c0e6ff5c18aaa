"""What every asynchronous policy must keep, as tests that the author of one inherits; and a run of one in memory.

class TestMine(AsyncPolicyConformance):
def make(self) -> AsyncPolicy[Any]:
return Mine({"f": 2})
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from covey.aggregation.asynchronous.contract import Arrival, AsyncContext, AsyncPolicy, Decision, PolicyState
from covey.errors import SpecError
from covey.vectors import TensorVector, Vector

SPARE_NODES = 3
DELIVERIES_A_NODE = 30


class PolicyRun:
    """An asynchronous run in memory, with asynchronous SGD on a model that is one tensor.

    Like the coordinator it keeps nothing but the newest version, what nodes have assigned, and what the policy pins,
    so a policy that pins too little fails here. It is the policy's `Records`.

    Args:
        policy: What decides.
        model: Version 0, float32 `[d]`.
        nodes: How many nodes there are; their ids are `node-0`, `node-1`, ...
        rate: The step: model + rate x direction.
    """

    def __init__(self, policy: AsyncPolicy[Any], model: Tensor, nodes: int, rate: float = -0.1) -> None:
        self.policy, self.rate = policy, rate
        self.roster = tuple(f"node-{i}" for i in range(nodes))
        self.version, self.numbers = 0, 0
        self.models = {0: model.clone()}
        self.arrivals: dict[int, Arrival] = {}
        self.assigned = dict.fromkeys(self.roster, 0)
        self.state: PolicyState = policy.load_state("")

    @property
    def newest(self) -> Tensor:
        """The newest version, float32 `[d]`."""
        return self.models[self.version]

    def update(self, number: int) -> Vector:
        """The vector of an earlier update, if it was pinned."""
        return self.arrivals[number].reader

    def held(self, number: int) -> Arrival:
        """An earlier update, if it was pinned."""
        return self.arrivals[number]

    def model(self, version: int) -> TensorVector:
        """A version, if it was pinned."""
        return TensorVector(self.models[version])

    def base(self, node: str) -> Tensor:
        """The version that a node is working on, float32 `[d]`."""
        return self.models[self.assigned[node]]

    def context(self) -> AsyncContext:
        """What the policy may know now."""
        return AsyncContext(self.version, self.roster, self)

    def arrival(self, node: str, vector: Tensor, weight: float = 1.0) -> Arrival:
        """A node's next update, not yet decided on."""
        return Arrival(self.numbers + 1, node, weight, self.assigned[node], TensorVector(vector))

    def deliver(self, node: str, vector: Tensor, weight: float = 1.0) -> Decision[Any]:
        """Have the policy decide on a node's update, make the step, and give the node its next assignment."""
        arrival = self.arrival(node, vector, weight)
        self.numbers += 1
        self.arrivals[arrival.number] = arrival
        decision = self.policy.decide(arrival, self.state, self.context())
        self.state = decision.state
        if decision.step is not None:
            self.models[self.version + 1] = self.newest + self.rate * decision.step.direction.dense()
            self.version += 1
        self.assigned[node] = self.version
        self._forget()
        return decision

    def drop(self, numbers: Collection[int]) -> None:
        """Have the policy drop held updates, as when their nodes are evicted."""
        self.state = self.policy.dropped(self.state, numbers)
        self._forget()

    def _forget(self) -> None:
        pinned = self.policy.pinned(self.state)
        versions = {self.version, *self.assigned.values(), *pinned.versions}
        self.models = {v: model for v, model in self.models.items() if v in versions}
        self.arrivals = {k: arrival for k, arrival in self.arrivals.items() if k in pinned.updates}


class AsyncPolicyConformance(ABC):
    """Inherit, implement `make`, and pytest runs the contract against the policy."""

    @abstractmethod
    def make(self) -> AsyncPolicy[Any]:
        """The policy under test."""

    def start(self, d: int = 40) -> PolicyRun:
        """A run with a few nodes more than the policy needs, far from the minimum of a quadratic at 0."""
        policy = self.make()
        model = 5 + torch.randn(d, generator=torch.Generator().manual_seed(1))
        return PolicyRun(policy, model, policy.min_nodes() + SPARE_NODES)

    def deliveries(self, run: PolicyRun, count: int | None = None) -> Iterator[tuple[str, Tensor]]:
        """Noisy gradients of |x|^2 / 2 from nodes in a random order: (node, float32 `[d]`)."""
        generator = torch.Generator().manual_seed(2)
        for _ in range(count or DELIVERIES_A_NODE * len(run.roster)):
            node = run.roster[int(torch.randint(len(run.roster), (), generator=generator))]
            yield node, run.base(node) + 0.3 * torch.randn(run.newest.shape, generator=generator)

    def test_refuses_unknown_options(self) -> None:
        """An option that does not exist is refused, by name."""
        with pytest.raises(SpecError, match="no_such_option"):
            type(self.make())({"no_such_option": 1})

    def test_refuses_too_few_nodes(self) -> None:
        """One node less than `min_nodes` is refused, with that number in the message."""
        policy = self.make()
        least = policy.min_nodes()
        assert least >= 1
        policy.require(least)
        with pytest.raises(SpecError, match=str(least)):
            policy.require(least - 1)

    def test_every_update_gets_one_final_verdict(self) -> None:
        """The arrival's verdict comes first; a held update is later accepted or rejected, once; nothing else is."""
        run = self.start()
        held: set[int] = set()
        for node, vector in self.deliveries(run):
            first, *others = run.deliver(node, vector).verdicts
            assert (first.number, first.node) == (run.numbers, node)
            assert all(other.verdict != "held" for other in others)
            assert {other.number for other in others} <= held
            held -= {other.number for other in others}
            held |= {first.number} if first.verdict == "held" else set()
            assert held <= set(run.policy.pinned(run.state).updates)

    def test_verdicts_are_complete(self) -> None:
        """A rejection has its reason and no share; shares are in [0, 1]; numbers are finite."""
        run = self.start()
        for node, vector in self.deliveries(run):
            for verdict in run.deliver(node, vector).verdicts:
                assert verdict.reason or verdict.verdict != "rejected"
                assert verdict.share == 0 or verdict.verdict == "accepted"
                assert 0 <= verdict.share <= 1
                assert all(math.isfinite(number) for number in verdict.numbers.values())

    def test_updates_of_evicted_nodes_are_dropped(self) -> None:
        """A held update that was dropped is not opened, pinned or judged again; other held ones stay."""
        run = self.start()
        held: set[int] = set()
        dropped: set[int] = set()
        for i, (node, vector) in enumerate(self.deliveries(run)):
            if held and i % 5 == 0:
                gone = min(held)
                run.drop({gone})
                held.remove(gone)
                dropped.add(gone)
                pinned = run.policy.pinned(run.state).updates
                assert held <= set(pinned)
                assert gone not in pinned
            decision = run.deliver(node, vector)
            verdicts = {judged.number: judged.verdict for judged in decision.verdicts}
            assert not dropped & verdicts.keys()
            assert decision.step is None or not dropped & decision.step.shares.keys()
            held = {number for number in held if number not in verdicts}
            held |= {number for number, verdict in verdicts.items() if verdict == "held"}

    def test_state_is_small_and_pins_at_most_one_update_and_version_a_node(self) -> None:
        """What is remembered does not grow with time."""
        run = self.start()
        n = len(run.roster)
        for node, vector in self.deliveries(run):
            run.deliver(node, vector)
            pinned = run.policy.pinned(run.state)
            assert len(pinned.updates) <= n + 1
            assert len(pinned.versions) <= n + 1
            assert len(run.state.model_dump_json()) < 2000 + 1000 * n

    def test_the_same_decision_again_also_from_the_states_json(self) -> None:
        """A decision that was lost in a crash comes out the same, to the bit."""
        run = self.start()
        for node, vector in self.deliveries(run, 100):
            arrival, text = run.arrival(node, vector), run.state.model_dump_json()
            policy = self.make()
            again = policy.decide(arrival, policy.load_state(text), run.context())
            step = None if again.step is None else again.step.direction.dense()
            decision = run.deliver(node, vector)
            assert again.verdicts == decision.verdicts
            assert again.state == decision.state
            assert (decision.step is None) == (step is None)
            if decision.step is not None and step is not None:
                assert torch.equal(decision.step.direction.dense(), step)

    def test_updates_are_not_modified(self) -> None:
        """Updates are the spooled files: read-only."""
        run = self.start()
        for node, vector in self.deliveries(run, 100):
            before = vector.clone()
            run.deliver(node, vector)
            assert torch.equal(vector, before)

    def test_block_size_does_not_change_a_step(self) -> None:
        """A direction is the same in any cut into blocks."""
        run = self.start()
        steps = (run.deliver(node, vector).step for node, vector in self.deliveries(run))
        step = next(step for step in steps if step is not None)
        whole = step.direction.dense()
        for width in (1, 7, 39):
            torch.testing.assert_close(step.direction.dense(width), whole, rtol=1e-6, atol=1e-6)

    def test_steps_have_accepted_updates_and_a_mixing_in_range(self) -> None:
        """What says how buffers are mixed names accepted updates of this decision only."""
        run = self.start()
        for node, vector in self.deliveries(run):
            decision = run.deliver(node, vector)
            accepted = {v.number for v in decision.verdicts if v.verdict == "accepted"}
            if decision.step is None:
                assert not accepted
                continue
            assert 0 <= decision.step.mixing <= 1
            assert {number for number, share in decision.step.shares.items() if share > 0} <= accepted

    def test_honest_nodes_get_on(self) -> None:
        """With honest nodes alone the run never starves, and the model improves."""
        run = self.start()
        start = run.newest.norm()
        for node, vector in self.deliveries(run):
            run.deliver(node, vector)
        assert run.version >= 10
        assert run.newest.norm() < 0.7 * start
