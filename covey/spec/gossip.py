"""Mode "gossip": nodes exchange models with each other, without a server in the path."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer
from typing_extensions import override

from covey.spec.bounds import Most
from covey.spec.mode import Mode
from covey.spec.run import RunSpec
from covey.spec.sections import MOST_ROUNDS, Beta, Idle, NamedSection, Positive, Section, Wrong

GOSSIP = Mode(
    name="gossip",
    section="gossip",
    unit="steps",
    count_key="steps",
    rule_kind="aggregator",
    synchronous=False,
    whole_shares=False,
    keeps_policy_state=False,
    coordinated=False,
)
UNREAD = ("rounds", "method", "aggregation", "server_optimizer", "weights", "keep")
"""Sections that a gossip run does not read: nobody aggregates, and each node keeps its own newest model."""
READ_WITH = {
    "global_every": ("global_spread",),
    "momentum": ("momentum_beta", "momentum_nesterov"),
    "outer": ("outer_every", "outer_beta", "outer_rate"),
}
"""Keys of [gossip] that are read only where another one is set."""
NamedOrTable = Annotated[
    NamedSection,
    BeforeValidator(lambda given: {"name": given} if isinstance(given, str) else given),
    PlainSerializer(lambda section: section.model_dump(mode="json") if section.options else section.name),
]
"""A plug-in by its name alone, or as a table with options; without options it is stored as its name."""


def unless(default: object) -> Any:
    """Of a key that is left out of the JSON where it says nothing, as stored specifications have it."""
    return Field(exclude_if=lambda value: bool(value == default))


class GossipSection(Section):
    """[gossip]: the policy of gossip runs."""

    protocol: NamedOrTable = NamedSection(name="sgp")
    """Its name, or a table with `name` and `options`. sgp: stochastic gradient push, in lock step or overlapped; agp:
    asynchronous, no node ever waits for another; ad-psgd: in pairs, without waiting. `covey.gossip.protocols` says what
    each needs of the rest."""
    steps: Annotated[int, Field(ge=1), Most(MOST_ROUNDS)] = 100
    """Of each node: local training, then an exchange."""
    overlap: int = Field(default=0, ge=0, le=64)
    """How many steps a model may be under way before its receiver waits for it; 0: lock step."""
    rate_correction: Literal["none", "elapsed", "asyspa"] | None = None
    """With agp and ad-psgd: how slow and fast nodes count alike; default: elapsed. none: they count by their speed."""
    min_nodes: int = Field(default=2, ge=1)
    """The run begins with at least so many nodes."""
    max_in_flight: int = Field(default=2, ge=1, le=64)
    """Exchanges of a node that may be unacknowledged; each keeps a model on its disk."""
    keep_every: Annotated[int, Field(ge=0), unless(0)] = 0
    """Each node keeps its model of steps 0, K, 2K, ..., for `covey gossip export --step`; 0: of none."""
    join: Annotated[Literal["split", "mint"] | None, unless(None)] = None
    """How a node comes in whose earlier incarnation was evicted. split: without mass, and a peer gives it half of its
    own; mint: with a peer's model, and with mass of its own. Default: split; mint with ad-psgd and where the receiver
    weighs."""
    global_every: int = Field(default=0, ge=0)
    """With sgp in lock step: after so many steps nodes only average, until `global_spread` is reached; 0: never."""
    global_spread: float = Field(default=0.01, gt=0, lt=1)
    """What averaging leaves of the nodes' distances, at most; with 2, 4, 8, ... nodes nothing is left in any case."""
    momentum: Annotated[Literal["none", "local", "quasi-global"], unless("none")] = "none"
    """Across steps, which [training] momentum is not. local: each node's own; quasi-global: it follows also what
    exchanges do to the model, which is better where nodes' data differ."""
    momentum_beta: Annotated[Beta, unless(0.9)] = 0.9
    momentum_nesterov: Annotated[bool, unless(False)] = False
    outer: Annotated[Literal["none", "slow-momentum"], unless("none")] = "none"
    """slow-momentum: every `outer_every` steps a node's way since the last time becomes one step with momentum."""
    outer_every: Annotated[int, Field(ge=1), unless(12)] = 12
    outer_beta: Annotated[Beta, unless(0.5)] = 0.5
    outer_rate: Annotated[Positive, unless(1.0)] = 1.0
    topology: NamedSection = NamedSection(name="exponential")
    mixing: NamedSection = NamedSection(name="uniform")

    @override
    def impossible(self) -> Iterator[Wrong]:
        yield from super().impossible()
        for chooser, keys in READ_WITH.items():
            if getattr(self, chooser) in (0, "none"):
                for key in keys:
                    if (given := getattr(self, key)) != type(self).model_fields[key].default:
                        yield key, Idle.without(chooser), given


class GossipSpec(RunSpec):
    """A run of mode "gossip"."""

    facts: ClassVar[Mode] = GOSSIP
    ignored: ClassVar[tuple[str, ...]] = UNREAD
    mode: Literal["gossip"]
    gossip: GossipSection = GossipSection()

    @override
    def node_paths(self) -> dict[str, str]:
        section = self.gossip
        named = {"protocol": section.protocol, "topology": section.topology, "mixing": section.mixing}
        paths = {f"gossip.{key}.name": plugin.name for key, plugin in named.items() if ":" in plugin.name}
        return super().node_paths() | paths

    @property
    def rounds_in_all(self) -> int:
        """[gossip] steps."""
        return self.gossip.steps

    @property
    def min_nodes(self) -> int:
        """[gossip] min_nodes."""
        return self.gossip.min_nodes

    @property
    def deadline_s(self) -> float:
        """There is none: nobody waits for a round."""
        return math.inf

    @override
    def impossible(self) -> Iterator[Wrong]:
        yield from super().impossible()
        for name in UNREAD:
            section = getattr(self, name)
            if section != type(self).model_fields[name].default:
                yield name, 'mode "gossip" does not read this section; leave it out', section.model_dump()
        for key, value in self.stop.model_dump(exclude_defaults=True, exclude={"epsilon"}).items():
            text = "each node does its own steps, and nobody ends the run for all; set gossip.steps, and leave it out"
            yield f"stop.{key}", text, value
        if self.model.initial and self.task.nodes:
            text = "with [task.nodes] nodes may have different models, and one file fits one of them; leave it out"
            yield "model.initial", text, self.model.initial
        if self.model.run[0]:
            text = "nodes among themselves know no other runs; name a file (covey run export writes one)"
            yield "model.initial", text, self.model.initial
        chosen = self.exchange.model_dump(exclude_defaults=True)
        for key in sorted(set(chosen) - {"codec", "options"}):
            yield f"exchange.{key}", 'mode "gossip" does not read this key; leave it out', chosen[key]
        if self.training.local_first:
            text = 'mode "gossip" averages whole models, so that nothing stays local; leave it out'
            yield "training.local_first", text, self.training.local_first
