"""The door for gossip runs: what nodes state, where they say that peers call them, and notices that peers check."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Protocol

import structlog

from covey import messages as msg
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.store_thread import StoreThread
from covey.errors import NotFound, NotReady
from covey.wire.evictions import FOR_GOOD, ONCE, EvictionStatement, sign_as_authority
from covey.wire.identities.authority import Authority

log = structlog.get_logger(room="coordinator")
MAX_RUN = 200
_ADDRESS = re.compile(r"[!-~]{1,253}:\d{1,5}")


def peer_address(node: str, address: str) -> str:
    """Where peers call a node, as it says; empty where that cannot be an address: then it only calls."""
    if not address or _ADDRESS.fullmatch(address):
        return address
    log.warning("a node's peer address is none, it is not called", node=node)
    return ""


class Sender(Protocol):
    """The connected nodes."""

    def send(self, node: str, message: msg.CoordinatorMessage) -> bool:
        """Send to a node; False if it is not connected."""


async def take_statement(
    runs: ActiveRuns, store: StoreThread, nodes: Sender, node: str, message: msg.GossipSaid
) -> None:
    """A node states how far it is in a run; one that is over here is over for the node, too."""
    run = runs.of(message.run)
    if run is not None and run.machine is not None:
        await run.mode.stated(node, message)
        return
    try:
        state: str = (await store.call(store.store.run, message.run[:MAX_RUN])).state
    except NotFound:
        state = "not on record"
    if state in ("queued", "running"):  # else it would wait for an answer
        digest = hashlib.sha256(message.statement).hexdigest()
        nodes.send(node, msg.Refusal(digest, NotReady.code, "the coordinator is just taking up this run: state again"))
    else:
        nodes.send(node, msg.Cancel(message.run[:MAX_RUN], 0, f"the run is {state}"))


class AuthorityNotary:
    """Signs notices with the federation's authority itself, whose certificate every node has.

    Args:
        authority: The federation's.
        now: Unix time in seconds.
    """

    def __init__(self, authority: Authority, now: Callable[[], float]) -> None:
        self._authority, self._now = authority, now

    def notice(self, run: str, node: str, incarnation: int, reason: str, *, for_good: bool = False) -> msg.GossipNotice:
        """That an incarnation is out of a run; `for_good`: with every other one of its node."""
        text = "".join(c if c.isprintable() else " " for c in reason)
        kind = FOR_GOOD if for_good else ONCE
        federation, at = self._authority.federation, self._now()
        statement = EvictionStatement(federation, run, node, incarnation, text, at, covey=kind)
        signed = sign_as_authority(statement, self._authority)
        return msg.GossipNotice(run, signed.statement, signed.signature, signed.certificate)
