"""Which nodes took part in no round of a run that is completed all the same: said in words, for its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from covey.machines.shortage import listed
from covey.storage.record.contract import ContributionRecord, Store

_COUNTED = ("declined", "lost", "late", "rejected")


def left_out(store: Store, run: str, roster: Sequence[str]) -> str:
    """What is said of those that were asked and of which no update was looked at; empty: there are none. Blocking."""
    absent = [row for row in store.contributions(run, roster) if _is_absent(store, run, row)]
    if not absent:
        return ""
    last = max(absent, key=lambda row: row.last_round)
    counts = ", ".join(_counts(absent))
    return (
        f"without {listed([row.node for row in absent])}, which took part in no round ({counts}; "
        f"the last one, {last.node}: {last.last_reason})"
    )


def _is_absent(store: Store, run: str, row: ContributionRecord) -> bool:
    if row.accepted or not row.last_round:
        return False
    if not row.rejected:
        return row.declined + row.lost + row.late == row.asked
    # A rule that leaves an update out has looked at it; an offer that was refused was no update.
    return not any(update.digest for update in store.updates(run, row.last_round) if update.node == row.node)


def _counts(absent: Sequence[ContributionRecord]) -> Iterator[str]:
    for name in _COUNTED:
        if number := sum(getattr(row, name) for row in absent):
            yield f"{number} {name}"
