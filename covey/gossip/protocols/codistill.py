"""Codistillation among peers: nodes send each other predictions, or their models, and mix nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from typing_extensions import override

from covey.gossip.protocols.contract import Combination, Context, Protocol, Received, State, Update, V
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.spec import GossipSection, GossipSpec, NamedSection
from covey.spec.codistillation import CodistillOptions

FLOAT32_BYTES, INT64_BYTES = 4, 8


class PeerOptions(CodistillOptions):
    """Options of the protocol: those of the method, and whether nodes wait."""

    waits: bool = False
    """Whether a node waits for what a step needs of its neighbours; else it goes on with what came."""


class Codistillation(Protocol):
    """What a node learns from is what its neighbours predict, or their models as they were; its own model it keeps.

    After Anil et al., "Large scale distributed neural network training through online distillation" (ICLR 2018, arXiv
    1804.03235). The terms of the loss, schedules and burn-in are those of the method `codistill`
    (`covey.methods.codistill`, with all its sources), and so is its code. What is different: a node hears its
    neighbours in the topology, not everybody, and nobody stands between them. Batches carry one unit, as wherever the
    receiver weighs; shares say nothing.

    Predictions, made after step s, are of the common examples of step s + 1 + `[gossip] overlap`, so they are
    (overlap + 1) T optimizer steps old where they are used, T of a step, and neither more nor less; those of any other
    step are not used. A node that `waits` does so at the end of step s for those of step s - overlap, and no bit of its
    model depends on the network; one that does not goes on with what came. Checkpoints are each neighbour's newest
    model.
    """

    Options = PeerOptions
    options: PeerOptions
    weighs = "receiver"
    own_models = True

    @property
    def _predicts(self) -> bool:
        return self.options.exchange == "predictions"

    @override
    def method(self) -> NamedSection:
        options = self.options.model_dump(mode="json", exclude_unset=True, exclude={"waits"})
        return NamedSection(name="codistill", options=options)

    @override
    def body(self, spec: GossipSpec) -> Mapping[str, int]:
        if not self._predicts:
            return {}
        count = self.options.examples(spec.training)
        return {"logits": count * (self.options.classes or 1) * FLOAT32_BYTES, "samples": count * INT64_BYTES}

    @override
    def policy(self, section: GossipSection, nodes: int) -> PushSumPolicy:
        overlap = section.overlap if self.options.waits else None
        return PushSumPolicy(
            section.steps, overlap, section.max_in_flight, least=0, weighs=self.weighs, takes_late=True
        )

    @override
    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        yield from super().refusals(run)
        section, at = run.spec.gossip, "gossip.protocol.options"
        yield from self.options.refusals(run.spec.training, at)
        if self._predicts and not section.overlap and not self.options.waits:
            text = "predictions for the very next step are not there yet where they are needed; write 1 or more"
            yield "gossip.overlap", f"{text} (they are then that many steps older), or waits = true in [{at}]"
        if section.overlap and not self._predicts:
            text = "a checkpoint is good for any step, so that none has to be made ahead; leave it out"
            yield "gossip.overlap", text
        if section.rate_correction is not None:
            text = f'protocol "{run.name}" mixes nothing, so that nodes need not count alike; leave it out'
            yield "gossip.rate_correction", text
        for key in ("momentum", "outer"):
            if getattr(section, key) != "none":
                text = f'protocol "{run.name}" mixes nothing, so a node trains as it would alone; leave it out, and '
                yield f"gossip.{key}", text + "choose an optimizer in [training]"

    @override
    def mix(self, state: State[V], received: Sequence[Received[V]], context: Context[V]) -> Update[V]:
        return Update(context.algebra.combination([]), stamp=state.stamp)
