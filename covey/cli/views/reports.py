"""What audits and replays came to, for people."""

from __future__ import annotations

from covey.client.audit.verify import AuditReport
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
