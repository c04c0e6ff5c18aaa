"""What a simulation of gossip is told, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from covey.errors import SpecError
from covey.gossip.audit import MassAudit
from covey.node.gossip.adversary import LYING_MASS, PeerAttack
from covey.simulation.adversaries import Attack, assigned, checked
from covey.simulation.gossip.faults import Network
from covey.simulation.plan import MAX_NODES, names_of
from covey.spec import GossipSpec


@dataclass(frozen=True)
class GossipPlan:
    """What to simulate.

    Attributes:
        spec: The run.
        nodes: How many nodes.
        folder: Where models and accounts are kept; new, or an earlier simulation's.
        network: What happens to messages and machines.
        processes: How many train at a time; None: one for each core.
        paths: Where the task finds the nodes' data: the same for all.
        device: What the processes compute on.
        attacks: What the last nodes do in place of what they should.
        evaluated: How many nodes' final models are evaluated, beside the mean of all.
        model: The file that `[model] initial` names; None: it names none.
    """

    spec: GossipSpec
    nodes: int
    folder: Path
    network: Network = field(default_factory=Network)
    processes: int | None = None
    paths: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    evaluated: int = 8
    attacks: Sequence[Attack] = ()
    model: Path | None = None

    @property
    def adversaries(self) -> Mapping[str, Attack]:
        """What those do that are not honest."""
        return assigned(self.attacks, names_of(self.nodes))

    @property
    def founders(self) -> list[str]:
        """Who takes part from the beginning, in the order of the roster."""
        return [name for name in names_of(self.nodes) if name not in self.network.joins]

    def require_possible(self) -> None:
        """Refuse what cannot work.

        Raises:
            SpecError: The message says what, and why.
        """
        if not self.spec.min_nodes <= self.nodes <= MAX_NODES:
            text = f"the run needs at least {self.spec.min_nodes}; at most {MAX_NODES} can be simulated"
            raise SpecError(f"--nodes {self.nodes}: {text}")
        checked([attack for attack in self.attacks if attack.name != LYING_MASS], self.nodes)
        if len(self.adversaries) >= self.nodes:
            raise SpecError("--attack: at least one node must be honest")
        for attack in self.attacks:
            PeerAttack(attack.name, attack.options).require_plain(self.spec)
        for text in self.network.impossible(names_of(self.nodes), self.spec.min_nodes):
            raise SpecError(text)


@dataclass(frozen=True)
class PeerOutcome:
    """What became of one node.

    Attributes:
        node: Its name.
        reason: How it ended: completed, left, died, not joined (all were through before); or what it waited for.
        steps: How many it did.
        weight: Its mass at the end, 1.0 is what it began with.
        loss: Of its last training; None: it did none.
        distance: Of its model from the mean of all, Euclidean; None: it is gone.
        metrics: Of its final model on the task's central data; empty: not evaluated.
        trained: Virtual time that it trained.
        blocked: Virtual time that it waited for peers.
        batches: Models that it gave.
        model_sha256: Of its final model.
    """

    node: str
    reason: str
    steps: int
    weight: float
    loss: float | None
    distance: float | None
    metrics: Mapping[str, float]
    trained: float
    blocked: float
    batches: int
    model_sha256: str


@dataclass(frozen=True)
class GossipOutcome:
    """What came out of a simulation.

    Attributes:
        peers: In the order of the roster.
        mass: The audit of all accounts.
        metrics: Of the mean of the nodes' final models, weighted by their mass; empty where they keep their own.
        model_sha256: Of that mean; empty where there is none.
        virtual_time: How long the run took, where a step of training takes 1.
        messages: How many models were sent, those that were lost or sent again included.
        lost_messages: How many of them were lost.
        model_bytes: Size of one, as it is sent.
        seconds: Wall time.
        folder: Where the consensus model is, as `mean.safetensors`.
    """

    peers: tuple[PeerOutcome, ...]
    mass: MassAudit
    metrics: Mapping[str, float]
    model_sha256: str
    virtual_time: float
    messages: int
    lost_messages: int
    model_bytes: int
    seconds: float
    folder: Path
