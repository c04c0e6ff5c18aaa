"""The steps of a gossip run, as its nodes stated them to the coordinator: curves of each node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from covey.client.audit.rows import AuditedRun
from covey.errors import CoveyError
from covey.gossip.mass import weight
from covey.storage.record.seals import bytes_in
from covey.wire.identities.gossip_statement import GossipStatement


@dataclass(frozen=True)
class GossipStep:
    """A step of a node.

    Attributes:
        node: Whose.
        incarnation: Which life of the node.
        step: Its number, from 0; the last one of a node that is through is its end, after all steps.
        at: When it was published, in Unix seconds.
        weight: The node's mass after it; 1.0 is what a node begins with.
        trained_s: Seconds of training until then, as `blocked_s` between trainings.
        blocked_s: Likewise.
        metrics: What its training measured.
    """

    node: str
    incarnation: int
    step: int
    at: float
    weight: float
    trained_s: float
    blocked_s: float
    metrics: Mapping[str, float]

    def row(self) -> dict[str, Any]:
        """As a flat row, its metrics under their own names."""
        names = ("node", "incarnation", "step", "at", "weight", "trained_s", "blocked_s")
        return {name: getattr(self, name) for name in names} | dict(self.metrics)


def steps_of(audited: AuditedRun) -> list[GossipStep]:
    """All steps that were stated, by node, incarnation and number; a statement that cannot be read tells of none."""
    steps: dict[tuple[str, int, int], GossipStep] = {}
    for row in audited.rows["gossip_statements"]:
        try:
            statement = GossipStatement.from_bytes(bytes_in(row.get("statement")) or b"")
        except CoveyError:
            continue
        for told in statement.steps:
            key = statement.node, statement.incarnation, told.step
            times = told.trained_s, told.blocked_s
            steps[key] = GossipStep(*key, told.at, weight(int(told.live)), *times, dict(told.metrics))
    return [steps[key] for key in sorted(steps)]
