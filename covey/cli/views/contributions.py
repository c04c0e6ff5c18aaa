"""What nodes contributed, and how often they did not, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from covey.cli.views.listing import Column, listing, safe_text
from covey.client.values import Contribution, Event, Node, Round, Run

COUNT_HEADS = {"accepted": "ACCEPT", "rejected": "REJECT"}
SHORT = ("rejected", "declined", "lost", "late")
"""How nodes answer without an update that counts, in the order in which it is shown."""
MOST_WARNINGS = 200
NOTICES = {
    "node-notice": "{node}, round {round}",
    "gossip-turned-away": "{node} takes no part",
    "update-lost": "the update of {node}, round {round}, was lost on the coordinator",
}
"""Kinds of events that a run's warnings show, and how each is introduced."""
NEWEST_EVENTS = 1000
"""So many of a run's events are looked through for them."""


def contribution_table(contributions: Iterable[Contribution]) -> list[Any]:
    """One line a node of a run: in how many rounds it was asked, and what came of it."""
    counted = ("asked", "accepted", "rejected", "declined", "lost", "late")
    return listing(
        [Column("NODE"), *counts_columns(counted)],
        [
            (contribution.node, str(contribution.asked), str(contribution.accepted), *counts(contribution))
            for contribution in contributions
        ],
    )


def counts_columns(verdicts: Iterable[str]) -> list[Column]:
    """Their columns."""
    return [Column(COUNT_HEADS.get(name, name.upper()), right=True) for name in verdicts]


def counts(item: Contribution | Round | Node) -> list[str]:
    """How often each of `SHORT` happened; nothing for never."""
    return [str(count) if (count := getattr(item, name)) else "" for name in SHORT]


def counts_line(item: Contribution | Round | Node) -> str:
    """The same in a sentence."""
    return ", ".join(f"{count} {name}" for name, count in zip(SHORT, counts(item), strict=True) if count)


def shortfalls(run: Run, contributions: Iterable[Contribution]) -> list[str]:
    """A warning for each node that contributed to less than it was asked for; of very many, how many more there are."""
    unit = "updates" if run.unit == "updates" else "rounds"
    short = (contribution for contribution in contributions if contribution.is_short)
    lines = [f"warning: {_shortfall(contribution, unit)}" for contribution in islice(short, MOST_WARNINGS)]
    more = sum(1 for _ in short)
    return [*lines, f"warning: {more} more nodes contributed to less than they were asked for"] if more else lines


def notices(events: Iterable[Event]) -> list[dict[str, Any]]:
    """What went wrong in a run though it went on, the newest first."""
    known = (event for event in events if event.kind in NOTICES)
    return [
        {"at": event.at, "kind": event.kind, "node": event.node, "round": event.detail.get("round", 0)}
        | {"reason": str(event.detail.get("reason", ""))}
        for event in known
    ]


def notice_lines(shown: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same as warnings; of very many, how many more there are."""
    lines = [
        f"warning: {NOTICES[item['kind']].format(**item)}: {safe_text(item['reason']).plain}"
        for item in shown[:MOST_WARNINGS]
    ]
    more = len(shown) - len(lines)
    return [*lines, f"warning: {more} more such events (covey events --run RUN)"] if more else lines


def _shortfall(item: Contribution, unit: str) -> str:
    counted = f"{item.accepted} of the {item.asked} {unit} that it was asked for ({counts_line(item)})"
    last = f"the last, {item.last_round}: {item.last_verdict}: {safe_text(item.last_reason).plain}"
    return f"{item.node} contributed to {counted}; {last}"
