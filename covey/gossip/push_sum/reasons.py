"""What a node waits for, in words."""

from __future__ import annotations

from collections.abc import Iterable

from covey.gossip.ledger import Incarnation
from covey.gossip.push_sum.exchange import Exchange


def reason_of(phase: str, exchange: Exchange, missing: Iterable[Incarnation], needed: int, *, is_leaving: bool) -> str:
    """What a machine waits for; empty: nothing.

    Args:
        phase: The machine's.
        exchange: Its account, and its peers.
        missing: Whose batches the step waits for.
        needed: In which step they were sent.
        is_leaving: Whether the node was asked to leave.
    """
    match phase:
        case "settling":
            return f"waiting to hear from {_listed(exchange.unheard())} after a restart"
        case "sharing" if is_leaving:
            return "waiting until all mass is handed over"
        case "sharing":
            busy = [peer for peer in exchange.published if exchange.is_busy(peer)]
            return f"waiting until {_listed(busy)} has the batch before"
        case "collecting":
            return f"waiting for what {_listed(missing)} sends in step {needed}"
        case "lingering":
            return "all steps are done; waiting for the others"
    return ""


def _listed(peers: Iterable[Incarnation]) -> str:
    return ", ".join(map(str, peers)) or "nobody"
