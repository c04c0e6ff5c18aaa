"""What the network and the machines do to a simulated gossip run, and what of it cannot be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Partition:
    """Sides that hear nothing of each other for a while.

    Attributes:
        sides: Names of nodes; one that is in none of them is cut off from nobody.
        since: Virtual time from which on no message passes between them.
        until: When messages pass again.
    """

    sides: tuple[frozenset[str], ...]
    since: float
    until: float

    def separates(self, node: str, other: str) -> bool:
        """Whether two nodes are on different sides."""
        sides = [side for side in self.sides if node in side or other in side]
        return len(sides) > 1

    def cuts(self, sender: str, receiver: str, now: float) -> bool:
        """Whether no message passes between two nodes now."""
        return self.since <= now < self.until and self.separates(sender, receiver)


@dataclass(frozen=True)
class Network:
    """What the network and the machines do to a run.

    Time is virtual: a step of training takes 1 on a machine of speed 1.

    Attributes:
        loss: The chance of each message (a model too) to be lost.
        delay: How long a message is under way, on average; each one takes between half and one and a half of it.
        speeds: Of nodes that are not of speed 1.
        dies: Nodes that end without a word, for good, when they have done so many steps.
        leaves: Nodes that leave in order when they have done so many steps.
        joins: Nodes that come when others are at work, and their times.
        returns: Of nodes that die: when they are back, with their records; at once where that time is over.
        partitions: Who is cut off from whom, and when.
        churn: How often each node is killed in a unit of time, on average; it is back with its record after a while.
    """

    loss: float = 0.0
    delay: float = 0.0
    speeds: Mapping[str, float] = field(default_factory=dict)
    dies: Mapping[str, int] = field(default_factory=dict)
    leaves: Mapping[str, int] = field(default_factory=dict)
    joins: Mapping[str, float] = field(default_factory=dict)
    returns: Mapping[str, float] = field(default_factory=dict)
    partitions: Sequence[Partition] = ()
    churn: float = 0.0

    @property
    def needs_beats(self) -> bool:
        """Whether somebody may wait for what is only said again, or, as two who leave at once, for time to pass."""
        return bool(self.loss or self.joins or self.returns or self.partitions or self.churn) or len(self.leaves) > 1

    def comes_back(self, node: str) -> bool:
        """Whether a node may be killed and started again."""
        return self.churn > 0 or node in self.returns

    def is_cut(self, sender: str, receiver: str, now: float) -> bool:
        """Whether no message passes between two nodes now."""
        return any(partition.cuts(sender, receiver, now) for partition in self.partitions)

    def impossible(self, names: Collection[str], min_nodes: int) -> Iterator[str]:
        """What cannot be, of a run of these nodes that begins with `min_nodes`: the option, and why."""
        if not 0 <= self.loss < 1:
            yield f"--loss {self.loss:g}: a chance of 0 or more, and below 1"
        if self.delay < 0:
            yield f"--delay {self.delay:g}: 0 or more steps"
        if not 0 <= self.churn <= 1:
            yield f"--churn {self.churn:g}: from 0 to 1 kills of each node in a step of training"
        yield from self._unknown(names)
        yield from self._torn(names)
        if forever := sorted(set(self.returns) - set(self.dies)):
            yield f"--returns {forever[0]}: it does not die; say when, with --dies {forever[0]}=STEP"
        if len({*self.dies, *self.leaves, *self.joins} - set(self.returns)) >= len(names):
            yield "--dies, --leaves, --joins: at least one node must be there from the beginning to the end"
        if len(names) - len(self.joins) < min_nodes:
            begins = f"the run begins with {len(names) - len(self.joins)} nodes"
            yield f"--joins: {begins}, and needs {min_nodes} ([gossip] min_nodes); let fewer join later"

    def _unknown(self, names: Collection[str]) -> Iterator[str]:
        cut_off = frozenset().union(*(side for partition in self.partitions for side in partition.sides))
        for option, named in (
            ("--slow", self.speeds),
            ("--dies", self.dies),
            ("--leaves", self.leaves),
            ("--joins", self.joins),
            ("--returns", self.returns),
            ("--partition", cut_off),
        ):
            if unknown := sorted(set(named) - set(names)):
                yield f"{option} {unknown[0]}: the nodes are {min(names)} to {max(names)}"

    def _torn(self, names: Collection[str]) -> Iterator[str]:
        for partition in self.partitions:
            everybody = [name for side in partition.sides for name in side]
            if len(partition.sides) < 2 or not all(partition.sides):
                yield "--partition: name nodes of two sides or more, with / between the sides"
            if twice := sorted(name for name in set(everybody) if everybody.count(name) > 1):
                yield f"--partition: {twice[0]} is on two sides"
            if not 0 <= partition.since < partition.until:
                yield f"--partition: it ends at {partition.until:g}, and begins at {partition.since:g}; write FROM-TO"
