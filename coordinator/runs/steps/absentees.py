"""Which nodes took part in no round of a run that is completed all the same: said in words, for its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from covey.machines.shortage import listed
from covey.storage.record.contract import ContributionRecord, Store

_COUNTED = ("declined", "lost", "late", "rejected")


def left_out(store: Store, run: str, roster: Sequence[str]) -> str:
    """What is said of those that were asked and of which no update was looked at; empty: there are none. Blocking."""
    absent = [one for one in store.contributions(run, roster) if _is_absent(store, run, one)]
    if not absent:
        return ""
    last = max(absent, key=lambda one: one.last_round)
    counts = ", ".join(_counts(absent))
    return (
        f"without {listed([one.node for one in absent])}, which took part in no round ({counts}; "
        f"the last one, {last.node}: {last.last_reason})"
    )


def _is_absent(store: Store, run: str, one: ContributionRecord) -> bool:
    if one.accepted or not one.last_round:
        return False
    if not one.rejected:
        return one.declined + one.lost + one.late == one.asked
    # A rule that leaves an update out has looked at it; an offer that was refused was no update.
    return not any(update.digest for update in store.updates(run, one.last_round) if update.node == one.node)


def _counts(absent: Sequence[ContributionRecord]) -> Iterator[str]:
    for name in _COUNTED:
        if number := sum(getattr(one, name) for one in absent):
            yield f"{number} {name}"
