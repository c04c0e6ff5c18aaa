"""What callers see of runs, nodes and the coordinator: some see some studies only, and of others nothing."""

from __future__ import annotations

from covey.coordinator.admin.access.callers import Caller
from covey.coordinator.admin.queries import Queries
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.studies import Studies
from covey.errors import NotFound
from covey.protos import admin_pb2 as pb

OVER_ALL_RUNS = ("accepted", "rejected", "declined", "lost", "late", "last_reason")
"""Of a node's view: they would tell of other studies' runs."""


class ScopedViews:
    """Views for each caller.

    Args:
        queries: What there is to see.
        studies: Whose nodes are which.
        runs: Those that are active.
    """

    def __init__(self, queries: Queries, studies: Studies, runs: ActiveRuns) -> None:
        self._queries, self._studies, self._runs = queries, studies, runs

    def runs(self, caller: Caller, limit: int, before: str) -> pb.ListRunsReply:
        """A page of the runs that the caller sees; who has no role in any study is spared the search."""
        if not (caller.sees_all or caller.studies):
            return pb.ListRunsReply()
        return self._queries.runs(limit, before, caller.sees)

    def nodes(self, caller: Caller, after: str, limit: int, role: str) -> pb.ListNodesReply:
        """A page of the nodes of studies that the caller sees; it may be empty, with more after it."""
        if caller.sees_all:
            return self._queries.nodes(after, limit, role)
        page = self._queries.nodes(after, limit, "node")
        kept = [] if role not in ("", "node") else [node for node in page.nodes if self._is_seen(caller, node.node)]
        return pb.ListNodesReply(nodes=[self._own(caller, node) for node in kept], next=page.next)

    def node(self, caller: Caller, node: str) -> pb.NodeDetail:
        """One of them; its events only for those who see all. Raises `NotFound`."""
        if caller.sees_all:
            return self._queries.node(node)
        return pb.NodeDetail(node=self.node_view(caller, node))

    def node_view(self, caller: Caller, node: str) -> pb.Node:
        """A node, and nobody of another role, as the caller sees it. Raises `NotFound`. Blocking."""
        if not (caller.sees_all or self._is_seen(caller, node)):
            raise NotFound(f"there is no node {node!r} in a study of yours")
        view = self._queries.node(node, "node").node
        return view if caller.sees_all else self._own(caller, view)

    def status(self, caller: Caller, status: pb.CoordinatorStatus) -> pb.CoordinatorStatus:
        """The coordinator, with the runs that the caller sees."""
        if caller.sees_all:
            return status
        runs = [run for run in status.active_runs if self._sees(caller, run)]
        del status.active_runs[:], status.waits_for[:]
        status.active_runs.extend(runs)
        status.current_run = runs[0] if runs else ""
        return status

    def _own(self, caller: Caller, node: pb.Node) -> pb.Node:
        work = [each for each in node.work if self._sees(caller, each.run)]
        for name in ("work", *OVER_ALL_RUNS):
            node.ClearField(name)
        node.work.extend(work)
        return node

    def _sees(self, caller: Caller, run: str) -> bool:
        active = self._runs.of(run)
        return active is not None and caller.sees(active.run)

    def _is_seen(self, caller: Caller, node: str) -> bool:
        scopes = [self._studies.scope(study) for study in caller.studies if caller.may("read", study)]
        return any(scope is None or node in scope for scope in scopes)
