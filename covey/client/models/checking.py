"""What submitting a specification would come to, asked of the coordinator without submitting it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from covey.client.models.initial import SUBMIT_DEADLINE_S, submission_of
from covey.client.specification import Specification
from covey.client.values import Json
from covey.protos import admin_pb2 as pb
from covey.texts import printable

if TYPE_CHECKING:
    from covey.client.reading.access import Access


@dataclass(frozen=True)
class CheckedNode:
    """A node of the run's study."""

    node: str
    is_connected: bool
    refusal: str
    """Why it would not take part, as far as the coordinator knows; empty: nothing is known against it."""
    remark: str
    """What could be in the way, and need not be."""


@dataclass(frozen=True)
class CheckedRun:
    """What would come of a submission that is right."""

    spec: Json
    """The whole specification, with its defaults."""
    notes: str
    """What one should know of it."""
    waits_for: str
    """If it were submitted now; empty: it would begin."""
    exchange: str
    """What of the model is shared; empty: all of it."""
    privacy: Json | None
    """What it will have spent at its end: epsilon, delta, unit, rounds, is_secret; None: no account."""
    model_bytes: int
    nodes: tuple[CheckedNode, ...]
    """By name; of very many the first 1,000."""
    nodes_count: int
    ready: int
    """How many of them are connected, with nothing known against them."""


def checked(access: Access, spec: Specification) -> CheckedRun:
    """Let the coordinator look at a specification.

    Raises:
        CoveyError: What a submission of it would be refused for.
    """
    reply: pb.CheckRunReply = access.call("CheckRun", submission_of(spec)[0], SUBMIT_DEADLINE_S)
    noted = json.loads(reply.noted)
    return CheckedRun(
        spec=json.loads(reply.spec),
        notes=printable(reply.notes),
        waits_for=printable(reply.waits_for),
        exchange=noted.get("exchange", ""),
        privacy=noted.get("privacy"),
        model_bytes=noted.get("model_bytes", 0),
        nodes=tuple(
            CheckedNode(printable(node.node), node.connected, printable(node.refusal), printable(node.remark))
            for node in reply.nodes
        ),
        nodes_count=reply.nodes_count,
        ready=reply.ready,
    )
