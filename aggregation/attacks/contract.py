"""What an attack is: the vector that an adversary sends in place of its own.

For drills and experiments only: to see what a rule holds out against before somebody else does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed
from covey.plugins import Kind, Pluggable
from covey.vectors import Vector


@dataclass(frozen=True)
class AttackContext:
    """What an adversary knows of the round beside its own vector.

    Attributes:
        round: The round, from 1.
        seed: The run's seed, the same for all adversaries of the run.
        node: The adversary's place in the roster.
        nodes: How many nodes the attack reckons with (n); 0 where that is not known.
        attackers: How many of them are adversaries (f); 0 where that is not known.
        known: Honest vectors that it knows, k rows of d finite float32 in node-id order; None if it knows of nobody.
            In a simulation these are all honest nodes', in a group of drill nodes what its members would honestly send.
        change: By how much the last round changed the model, of the kind that nodes send: float32 `[d]`; None in the
            first round.
        memory: What `Attack.remembered` gave in the last round, float32 vectors by name; empty at first.
    """

    round: int
    seed: int
    node: int = 0
    nodes: int = 0
    attackers: int = 0
    known: UpdateMatrix | None = None
    change: Vector | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    receiver: Vector | None = None
    """In gossip: the newest model of the peer that the vector goes to, as far as the adversary knows it, `[d]`."""

    def require_known(self, least: int, attack: str) -> UpdateMatrix:
        """The honest vectors, of which an attack needs at least so many.

        Raises:
            RunFailed: There are fewer.
        """
        count = self.known.n if self.known is not None else 0
        if self.known is None or count < least:
            raise RunFailed(
                f"attack {attack} needs to know at least {least} honest vectors, and knows {count}: use it in a "
                "simulation, or in a group of drill nodes (--attack-group)"
            )
        return self.known


class Attack(Pluggable):
    """An attack. Its docstring states paper, equation, and deviations.

    All vectors are of the kind that the run's nodes send (change, gradient or parameters).

    Class attributes:
        Options: The model of its options.
        omniscient: Whether it needs `AttackContext.known`.
        poisons_labels: Whether the adversary trains on labels y -> C - 1 - y.
        needs_change: Whether it uses `AttackContext.change`.
    """

    omniscient: ClassVar[bool] = False
    poisons_labels: ClassVar[bool] = False
    needs_change: ClassVar[bool] = False

    @abstractmethod
    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """What the adversary sends: float32 `[d]`, not necessarily finite.

        Args:
            own: What it would honestly send, float32 `[d]`, finite.
            context: What else it knows.

        Raises:
            RunFailed: It knows too little for this attack.
        """

    def remembered(self, own: Vector, context: AttackContext) -> Mapping[str, Vector]:
        """What it wants back in the next round's `AttackContext.memory`, from the same arguments; default nothing."""
        return {}


ATTACKS = Kind("attack", "covey.attacks", Attack, "attack")
