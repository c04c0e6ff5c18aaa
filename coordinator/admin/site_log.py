"""What a node shares of its log, in pages; for who asks the coordinator, and who reads its data directory."""

from __future__ import annotations

from covey.coordinator.admin.pages import MAX_PAGE, fitting
from covey.coordinator.nodes.site_logs import SiteLogs
from covey.errors import NotFound
from covey.machines.shortage import listed
from covey.protos import admin_pb2 as pb
from covey.storage.record.contract import RunRecord


def site_log_page(logs: SiteLogs, run: RunRecord, node: str, after: int) -> pb.ListSiteLogReply:
    """A page of lines after a number, in order. Blocking.

    Raises:
        NotFound: The node takes no part in the run.
    """
    if node not in run.roster:
        known = f"there are {listed(run.roster)}" if run.roster else "it has begun with none yet"
        raise NotFound(f"no node {node!r} takes part in run {run.name} ({run.run}): {known}")
    page = logs.page(run.run, node, after, MAX_PAGE + 1)
    entries = (
        pb.SiteLogEntry(number=line["number"], at=line["at"], round=line["round"], kind=line["kind"], text=line["text"])
        for line in page.lines
    )
    kept, more = fitting(entries, MAX_PAGE)
    return pb.ListSiteLogReply(sharing=page.sharing, lines=kept, next=kept[-1].number if more else 0)
