"""A node as an adversary among peers, for a drill: what it sends in place of its model or of its mass.

Everything else of it is honest: it trains, keeps its record, and answers. It knows the models that it was sent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import JsonValue
from typing_extensions import override

from covey.errors import SpecError
from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.protocols.encoding import is_encoded
from covey.gossip.protocols.runs import body_of
from covey.node.gossip.ports import Post, Said
from covey.spec import GossipSpec
from covey.worker.jobs.mixtures import Forgery
from covey.worker.jobs.training import AttackOrder

B = TypeVar("B")
LYING_MASS = "lying-mass"
"""Its batches have more mass than it gives: `factor` times (2); the models are honest."""
DEFAULT_FACTOR = 2
UNUSABLE = ("label-flip", "stale-replay", "lazy-copy", "mimic")
"""They poison trainings, or remember rounds: there are none here that they could."""


@dataclass(frozen=True)
class PeerAttack:
    """What an adversary does.

    Attributes:
        name: The attack plug-in's, or `lying-mass`.
        options: Its options.
        nodes: How many nodes there are.
        attackers: How many of them are adversaries.
    """

    name: str
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    nodes: int = 0
    attackers: int = 1

    def __post_init__(self) -> None:
        """Raises SpecError for what cannot be done among peers."""
        if self.name in UNUSABLE:
            raise SpecError(f"--attack {self.name} is not for gossip; choose another (covey plugins)")
        if self.name == LYING_MASS:
            is_known = set(self.options) <= {"factor"}
            if not is_known or not isinstance(self.factor, int) or self.factor < DEFAULT_FACTOR:
                raise SpecError(f"--attack {LYING_MASS} has one option: factor, a whole number from {DEFAULT_FACTOR}")

    def require_plain(self, spec: GossipSpec) -> None:
        """Refuse a run whose bodies are not models. Raises SpecError."""
        if self.name == LYING_MASS:
            return
        if is_encoded(spec):
            raise SpecError(f"--attack {self.name}: it is on models as they are; leave out [exchange] codec")
        if body_of(spec, allow_path=True):
            raise SpecError(f'--attack {self.name}: it is on models; nodes of "{spec.gossip.protocol.name}" send none')

    @property
    def factor(self) -> JsonValue:
        """By how much it lies."""
        return self.options.get("factor", DEFAULT_FACTOR)

    @property
    def order(self) -> AttackOrder:
        """For the worker."""
        return AttackOrder(self.name, self.options, nodes=self.nodes, attackers=self.attackers)

    def forgery(self, seed: int, place: int, known: Sequence[Path], receiver: Path | None) -> Forgery:
        """What a worker has to make."""
        return Forgery(self.order, seed, place, tuple(known), receiver)


class Forger(Protocol[B]):
    """Makes bodies; a `Labour` that can do this too."""

    @abstractmethod
    def forge(
        self, attack: PeerAttack, step: int, own: B, known: Sequence[B], receiver: B | None, then: Callable[[B], None]
    ) -> None:
        """Begin to make what is sent in place of `own`; `then` is called with it, and has to `release` it."""
        ...

    def hold(self, model: B) -> B: ...  # noqa: D102
    def release(self, model: B) -> None: ...  # noqa: D102


class AdversaryPost(Post[B]):
    """Sends what the attack makes, in place of what the executor gives.

    Args:
        inner: The real post.
        attack: What it does.
        forger: Makes bodies.
        partners: Names of the adversaries, which do not count as known.
    """

    def __init__(self, inner: Post[B], attack: PeerAttack, forger: Forger[B], partners: Sequence[str] = ()) -> None:
        self._inner, self._attack, self._forger, self._partners = inner, attack, forger, partners
        self._known: dict[Incarnation, B] = {}
        self._made: dict[Incarnation, tuple[int, B | None]] = {}
        """By receiver: the number of its newest batch, and the body; None: it is being made."""

    def saw(self, peer: Incarnation, body: B) -> None:
        """A peer's model came."""
        before = self._known.get(peer)
        self._known[peer] = self._forger.hold(body)
        if before is not None:
            self._forger.release(before)

    @override
    def tell(self, peer: Incarnation, event: Said) -> None:
        self._inner.tell(peer, event)

    @override
    def acknowledge(self, peer: Incarnation, sequence: int) -> None:
        self._inner.acknowledge(peer, sequence)

    @override
    def refuse(self, peer: Incarnation, sequence: int, reason: str) -> None:
        self._inner.refuse(peer, sequence, reason)

    @override
    def send(self, batch: Batch, step: int, body: B) -> None:
        if self._attack.name == LYING_MASS:
            factor = int(str(self._attack.factor))
            self._inner.send(replace(batch, units=factor * batch.units, given=factor * batch.given), step, body)
            return
        number, forged = self._made.get(batch.peer, (0, None))
        if number == batch.sequence:
            if forged is not None:
                self._inner.send(batch, step, forged)
            return
        if forged is not None:
            self._forger.release(forged)
        self._made[batch.peer] = (batch.sequence, None)
        known = [model for peer, model in sorted(self._known.items()) if peer.node not in self._partners]
        receiver = self._known.get(batch.peer)
        held = [self._forger.hold(model) for model in (body, *known, receiver) if model is not None]

        def send(attacked: B) -> None:
            for model in held:
                self._forger.release(model)
            self._made[batch.peer] = (batch.sequence, attacked)
            self._inner.send(batch, step, attacked)

        self._forger.forge(self._attack, step, body, known, receiver, send)
