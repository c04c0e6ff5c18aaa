"""Why a run has too few updates, in words that name nodes; and which of the reasons will not change by themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from covey.errors import LayoutError, NoPart, OutOfMemory, PluginError, PolicyError, SpecError, TaskError
from covey.machines.protocol import Verdict

Refusals = Mapping[str, tuple[Verdict, str]]
"""Node to how it answered without an update that counts, and why."""
_LASTING = frozenset(error.code for error in (LayoutError, OutOfMemory, PluginError, PolicyError, SpecError, TaskError))
"""Codes of declines that a node gives again and again until its operator, or the run, is another."""
_NAMED = 5
"""Groups of nodes that are named; the record has the rest."""
_REASON_CHARS = 400


def will_not_change(verdict: Verdict, reason: str) -> bool:
    """Whether a node would answer the same if it were asked again; a decline's reason begins with its code."""
    return verdict == "declined" and _code(reason) in _LASTING


def have_a_part_now(refusals: Refusals, invited: Collection[str]) -> set[str]:
    """Those who declined because other nodes had all parts of the data, if one of the invited is out since then.

    Without it, in another attempt, its part is free; see `free_part` in `covey.coordinator.runs.assignments`.
    """
    waiting = {
        node for node, (verdict, reason) in refusals.items() if verdict == "declined" and _code(reason) == NoPart.code
    }
    return waiting if any(node in refusals and node not in waiting for node in invited) else set()


def all_declined_for_good(refusals: Refusals) -> bool:
    """Whether every node that could answer has declined for a reason that will not change; one that is lost cannot."""
    answered = [refusal for refusal in refusals.values() if refusal[0] != "lost"]
    return bool(answered) and all(will_not_change(*refusal) for refusal in answered)


def refusals_text(refusals: Refusals) -> str:
    """Who answered how, and why: nodes with the same answer together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node, (verdict, reason) in refusals.items():
        groups.setdefault((verdict, reason.removeprefix(f"{verdict}: ")), []).append(node)
    sentences = [f"{listed(nodes)} {verdict}: {_cut(reason)}" for (verdict, reason), nodes in groups.items()]
    more = [f"and {len(sentences) - _NAMED} more kinds of answers"] if len(sentences) > _NAMED else []
    return "; ".join(sentences[:_NAMED] + more)


def listed(nodes: Iterable[str]) -> str:
    """Names of nodes in a sentence: `n0`, `n0 and n1`, `n0, n1 and 7 more`."""
    names = list(nodes)
    shown = names if len(names) <= _NAMED + 1 else [*names[:_NAMED], f"{len(names) - _NAMED} more"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def _code(reason: str) -> str:
    return reason.partition(":")[0]


def _cut(reason: str) -> str:
    return reason if len(reason) <= _REASON_CHARS else reason[:_REASON_CHARS] + "..."
