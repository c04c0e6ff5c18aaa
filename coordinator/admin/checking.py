"""What a submission would come to: looked at as one that is recorded, with the nodes that could take the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from functools import partial

from covey.coordinator.admin.access.callers import Access
from covey.coordinator.admin.submission import Submissions, SubmissionServices
from covey.coordinator.admin.views import MOST_NAMES
from covey.coordinator.runs.schedule.scheduler import MODEL_BYTES
from covey.machines.places import Room
from covey.protos import admin_pb2 as pb
from covey.spec import RunSpec
from covey.storage.record.contract import NodeRecord
from covey.wire.artifacts import artifact_from
from covey.wire.channels import Context

CHECK_CALLS = {"CheckRun": "check_run"}
"""Unary methods of `covey.v1.Admin` to those of `RunChecks`."""
GIB = 2**30


class RunChecks:
    """Checks specifications for those who may submit them.

    Args:
        access: Who may do what.
        submissions: Looks at a specification.
        services: What submissions are given.
        connected: The nodes that are.
        room: What a connected node says that it has.
    """

    def __init__(
        self,
        access: Access,
        submissions: Submissions,
        services: SubmissionServices,
        connected: Container[str],
        room: Callable[[str], Room],
    ) -> None:
        self._access, self._submissions, self._services = access, submissions, services
        self._connected, self._room = connected, room

    async def check_run(self, request: pb.SubmitModelRequest, context: Context) -> pb.CheckRunReply:
        """All that a submission refuses is refused; what would come of it else. Nothing is recorded."""
        model = artifact_from(request.model) if request.HasField("model") else None
        submission = await self._submissions.check(request.submission, self._access.caller(context), model)
        spec, record, noted = submission.spec, submission.record, submission.noted
        store, takes = self._services.store, partial(self._services.studies.takes, spec.study)
        known = [node for node in await store.call(store.store.nodes) if (node.role, node.state) == ("node", "active")]
        nodes = [self._checked(spec, node) for node in known if takes(node.node)]
        ready = sum(node.connected and not node.refusal for node in nodes)
        size = noted.get(MODEL_BYTES, 0)
        place = self._services.scheduler.would_wait(record, size if isinstance(size, int) else 0)
        begins = f"it begins once {spec.min_nodes} nodes are there: {ready} of those connected could take it"
        return pb.CheckRunReply(
            spec=record.spec,
            notes=submission.told,
            noted=json.dumps(noted),
            waits_for="; ".join(filter(None, [place, begins if ready < spec.min_nodes else ""])),
            nodes=nodes[:MOST_NAMES],
            nodes_count=len(nodes),
            ready=ready,
        )

    def _checked(self, spec: RunSpec, node: NodeRecord) -> pb.CheckedNode:
        refusal, remark = refusal_of(spec, node), remark_of(spec, self._room(node.node))
        return pb.CheckedNode(node=node.node, connected=node.node in self._connected, refusal=refusal, remark=remark)


def refusal_of(spec: RunSpec, node: NodeRecord) -> str:
    """Why a node would take no part in a run, as far as the record says; empty: it says nothing against it."""
    asked, task = spec.evaluation.nodes, spec.task.name
    if asked and node.node not in asked:
        return "it is not asked ([evaluation] nodes)"
    if node.tasks and task not in node.tasks and ":" not in task:
        return f"its operator does not allow task {task!r} (allowed: {', '.join(node.tasks)})"
    return ""


def remark_of(spec: RunSpec, room: Room) -> str:
    """What may be in the way on a node, which only the node itself knows: paths of its operator's, its GPU's memory."""
    remarks = []
    if paths := spec.node_paths():
        remarks.append(f"its operator has to allow {', '.join(dict.fromkeys(paths.values()))} ([policy] allow_paths)")
    asked = spec.training.gpu_memory_gib or 0
    if room.gpu_bytes and asked * GIB > room.gpu_bytes:
        remarks.append(f"the run asks for {asked:g} GiB of GPU memory; it had {room.gpu_bytes / GIB:.1f} free")
    return "; ".join(remarks)
