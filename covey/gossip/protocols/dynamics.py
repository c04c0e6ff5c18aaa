"""What a gossip run does to a node's vectors: its protocol, with momentum before it and an outer step after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from covey.gossip.protocols.contract import Context, Protocol, Received, State, Update
from covey.gossip.protocols.momentum import LocalMomentum, Momentum, QuasiGlobalMomentum, SlowMomentum
from covey.gossip.protocols.runs import protocol_of
from covey.gossip.push_sum.weighing import Weighs
from covey.spec import GossipSection

V = TypeVar("V")


class Dynamics:
    """The mathematics of a run, as `Protocol` has it.

    Args:
        protocol: The run's.
        momentum: Between training and the protocol; None: none.
        outer: After the protocol's part of a step; None: none.
    """

    def __init__(self, protocol: Protocol, momentum: Momentum | None, outer: SlowMomentum | None) -> None:
        self._protocol, self._momentum, self._outer = protocol, momentum, outer

    @classmethod
    def of(cls, section: GossipSection, *, allow_path: bool = False) -> Dynamics:
        """Of a run's [gossip]. Raises as `protocol_of`."""
        momentum: Momentum | None = None
        if section.momentum != "none":
            kind = LocalMomentum if section.momentum == "local" else QuasiGlobalMomentum
            momentum = kind(section.momentum_beta, nesterov=section.momentum_nesterov)
        slow = section.outer == "slow-momentum"
        outer = SlowMomentum(section.outer_every, section.outer_beta, section.outer_rate) if slow else None
        return cls(protocol_of(section, allow_path=allow_path), momentum, outer)

    @property
    def weighs(self) -> Weighs:
        """Who says what a model counts for."""
        return self._protocol.weighs

    @property
    def differences(self) -> bool:
        """Whether bodies are differences."""
        return self._protocol.differences

    @property
    def own_models(self) -> bool:
        """Whether nodes keep models of their own: what came is kept for local training."""
        return self._protocol.own_models

    @property
    def travels(self) -> tuple[str, ...]:
        """Names of the vectors that travel beside the model, in the order of the file."""
        return self._protocol.travels

    @property
    def keeps(self) -> tuple[str, ...]:
        """Names of the vectors that stay on the node, in the order of the file."""
        stages = [stage.keeps for stage in (self._momentum, self._outer) if stage is not None]
        return (*self._protocol.keeps, *(name for names in stages for name in names))

    def train(self, state: State[V], change: V, scale: float, context: Context[V]) -> Update[V]:
        """As `Protocol.train`. Without a training, momentum and outer step rest."""
        momentum, outer = self._momentum, self._outer
        if not context.is_trained:
            return self._protocol.train(state, change, scale, context)
        own = momentum.step(state, change, context) if momentum else Update(change)
        update = self._protocol.train(state, own.change, scale, context)
        update = replace(update, vectors={**own.vectors, **update.vectors})
        return outer.after(state, update, context) if outer else update

    def mix(self, state: State[V], received: Sequence[Received[V]], context: Context[V]) -> Update[V]:
        """As `Protocol.mix`."""
        if not received and not self._protocol.mixes_alone:
            return Update(context.algebra.combination([]), stamp=state.stamp)
        update = self._protocol.mix(state, received, context)
        if self._momentum is None:
            return update
        return replace(update, vectors={**update.vectors, **self._momentum.mixed(state, update.change, context)})
