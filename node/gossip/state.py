"""A machine's state as JSON, and the account that goes with every message."""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

from covey.errors import StoreError
from covey.gossip import averaging as averaging_module
from covey.gossip import ledger as ledger_module
from covey.gossip.ledger import Incarnation, InEdge, OutEdge
from covey.gossip.push_sum import actions, events
from covey.gossip.push_sum import exchange as exchange_module
from covey.gossip.push_sum import machine as machine_module
from covey.gossip.push_sum import policy as policy_module
from covey.gossip.push_sum import rates as rates_module
from covey.gossip.push_sum import words as words_module
from covey.gossip.push_sum.events import Progressed
from covey.gossip.push_sum.machine import PushSum
from covey.machines.values import KIND, ValueTable

TABLE = ValueTable(
    events,
    actions,
    machine_module,
    policy_module,
    exchange_module,
    words_module,
    ledger_module,
    rates_module,
    averaging_module,
)
"""Everything that a machine's state, its events and its actions consist of."""
PUBLISHED = ("collecting", "mixing", "lingering", "settling")
"""Phases in which nothing more of the machine's step will be sent."""


def machine_to_text(machine: PushSum) -> str:
    """A machine's whole state."""
    return json.dumps(TABLE.to_json(machine), separators=(",", ":"))


def machine_from_text(text: str) -> PushSum:
    """The machine that `machine_to_text` was given.

    Raises:
        StoreError: It is none.
    """
    try:
        machine = TABLE.from_json(json.loads(text, object_hook=_as_now))
    except ValueError as error:
        raise StoreError(f"the record's state of the machine cannot be read: {error}") from error
    if not isinstance(machine, PushSum):
        raise StoreError("the record's state of the machine is that of something else")
    return machine


def _as_now(value: dict[str, Any]) -> dict[str, Any]:
    """A part of a machine's state without what older versions wrote, and nothing goes by any more."""
    if value.get(KIND) == "Peer":
        value.pop("has_agreed", None)
    return value


def progress(
    machine: PushSum, peer: Incarnation, step: int, is_finished: bool, now: float, farewell: int = 0
) -> Progressed:
    """What a node says of itself to a peer.

    Args:
        machine: The node's.
        peer: To whom.
        step: Nothing more of it, nor of steps before, will be sent.
        is_finished: Whether all steps are done.
        now: The time.
        farewell: How far both know that they are through; 0 where this node is not.
    """
    ledger = machine.exchange.ledger
    out, into = ledger.out.get(peer, OutEdge()), ledger.into.get(peer, InEdge())
    acknowledged = out.sequence - bool(out.waiting)
    return Progressed(machine.me, step, out.sequence, acknowledged, into.sequence, is_finished, now, farewell)


def standing(machine: PushSum, peer: Incarnation) -> tuple[bool, ...]:
    """How a peer stands with a node: an event about it that changes none of this need not be on record."""
    exchange = machine.exchange
    among: tuple[Container[Incarnation], ...] = (exchange.peers, exchange.departed, exchange.contradictions)
    return (bool(machine.end), peer in exchange.ledger.evicted, *(peer in each for each in among))


def is_done_with(machine: PushSum) -> int:
    """The newest step of which a node sends nothing more: what a leaver hands over belongs to none.

    So where nodes wait for each other, nobody waits for a leaver that waits for a peer that is away.
    """
    if machine.phase == "sharing" and machine.is_leaving and machine.policy.overlap is not None:
        return machine.policy.steps
    return machine.step if machine.phase in PUBLISHED else machine.step - 1
