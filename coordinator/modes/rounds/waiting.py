"""What an open round waits for, and what can still bring it on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from covey.machines.attendance import Missed
from covey.machines.membership import Membership
from covey.machines.protocol import NO_UPDATE, Verdict
from covey.machines.shortage import Refusals, all_declined_for_good, listed, refusals_text
from covey.texts import number_of


def refusals_of(answers: Mapping[str, Verdict], reasons: Mapping[str, str]) -> Refusals:
    """Who has answered without an update that counts, and why."""
    refused = {node: verdict for node, verdict in answers.items() if verdict in (*NO_UPDATE, "rejected")}
    return {node: (verdict, reasons.get(node, "no reason was kept")) for node, verdict in refused.items()}


def hope_of(pending: Sequence[str], received: Sequence[str], refusals: Refusals) -> str:
    """What can bring a round on that is open, and short."""
    if pending:
        return f"waiting for {listed(pending)}"
    if not received and all_declined_for_good(refusals):
        return "no node that is here can do this work; it goes on when one is started again, or another one joins"
    return "waiting for more nodes"


def stuck_text(number: int, why: str, pending: Sequence[str], received: Sequence[str], refusals: Refusals) -> str:
    """Why a round that is short stays open, and what can bring it on."""
    sentences = [refusals_text(refusals), why, hope_of(pending, received, refusals)]
    return f"round {number}: {'; '.join(filter(None, sentences))}"


def failed_text(number: int, attempts: int, why: str, refusals: Refusals) -> str:
    """Why a run that is not to wait has failed with a round that is short."""
    text = f"round {number}: {why} after {number_of(attempts, 'attempt')}"
    return "; ".join(filter(None, [text, refusals_text(refusals)]))


def lost_text(number: int, attempts: int) -> str:
    """Why a run fails whose coordinator loses again and again what nodes sent."""
    return (
        f"round {number}: in {number_of(attempts, 'attempt')} updates were damaged or missing on the coordinator "
        "before they were used; its log names the files: check its disk, and what else writes there"
    )


def awaited(number: int, pending: Sequence[str], present: Collection[str], rejoin_s: float) -> str:
    """Whom an open round waits for, where none of them is here; empty: somebody is, or nobody is waited for."""
    if not pending or any(node in present for node in pending):
        return ""
    return f"round {number}: waiting for {listed(pending)} to come back, for up to {rejoin_s:g} s without a connection"


def overdue_text(missed: Missed | None) -> str:
    """What is said of a node whose time is up; `missed`: it is connected, and what will be known of it."""
    text = "no update before the deadline"
    if missed is None or not missed.rest_rounds:
        return text
    return f"{text}; in the next {missed.rest_rounds} rounds it is asked only where it is needed"


def short_text(number: int, min_nodes: int, eligible: Sequence[str], present: Collection[str]) -> str:
    """Why a round cannot be opened yet."""
    away = sum(node not in present for node in eligible)
    text = f"round {number} needs {number_of(min_nodes, 'node')}; {len(eligible) - away} connected"
    return text + (f", {away} expected back" if away else "")


def away_text(members: Membership) -> str:
    """Who of a run that waits for nodes is not here; empty: nobody."""
    absent = members.absent()
    return f"away: {listed(absent)}" if absent else ""
