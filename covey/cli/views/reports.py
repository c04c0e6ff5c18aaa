"""What audits, replays, and checks of what is to be submitted came to, for people."""

from __future__ import annotations

from typing import Any

from covey.cli.views.listing import Column, listing, pairs, safe_text
from covey.cli.views.words import amount
from covey.client.audit.verify import AuditReport
from covey.client.models.checking import CheckedNode, CheckedRun
from covey.client.replay import ReplayReport


def audit_text(report: AuditReport) -> str:
    """An audit's report."""
    what = f"{report.commits} commits and {report.updates} updates"
    if report.statements:
        what = f"{report.statements} statements of nodes"
    counts = f"{what} of run {report.run} were checked"
    pruned = f"{report.pruned} of the updates have no payload files any more (retention)" if report.pruned else ""
    verdict = "every signature is valid, and what is on record is what was signed" if report.ok else ""
    notes = [f"note: {note}" for note in report.notes]
    return "\n".join(filter(None, [counts, pruned, verdict, *notes, *report.problems]))


def replay_text(report: ReplayReport) -> str:
    """A replay's report."""
    lines = [f"{report.decisions} {report.unit} of run {report.run} were made again from the stored updates"]
    if report.ok:
        lines.append(f"every verdict and all {report.versions} versions came out the same: {report.model_sha256}")
    return "\n".join([*lines, *report.problems])


def checked_run(checked: CheckedRun) -> list[Any]:
    """What one should know of it, and a line a node."""
    rows = [(node.node, "connected" if node.is_connected else "away", _why(node)) for node in checked.nodes]
    more = checked.nodes_count - len(checked.nodes)
    return [
        pairs(
            [
                ("run", safe_text(checked.spec["name"])),
                ("mode", checked.spec["mode"]),
                ("model", amount(checked.model_bytes) if checked.model_bytes else ""),
                ("exchange", safe_text(checked.exchange)),
                ("to know", safe_text(checked.notes)),
                ("waits for", safe_text(checked.waits_for)),
                ("nodes", f"{checked.ready} of {checked.nodes_count} are connected and could take it"),
            ]
        ),
        *listing([Column("NODE"), Column("STATE"), Column("WHY NOT", below="narrow")], rows),
        *([safe_text(f"and {more} nodes more")] if more else []),
    ]


def _why(node: CheckedNode) -> Any:
    return safe_text("; ".join(filter(None, [node.refusal, f"maybe: {node.remark}" if node.remark else ""])))
