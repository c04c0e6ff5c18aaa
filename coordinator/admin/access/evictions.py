"""Shuts a node out of one study: of the runs that go on, and of those to come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from covey.coordinator.admin.access.callers import Caller
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.store_thread import StoreThread
from covey.coordinator.studies import EVICTED, Studies, study_of
from covey.errors import NotFound
from covey.protos import admin_pb2 as pb
from covey.storage.record.contract import EventRecord

KIND = "node-evicted-of-study"


@dataclass(frozen=True)
class Evictions:
    """Of studies.

    Attributes:
        store: The record.
        studies: From which nodes are shut out.
        runs: Those that are active.
        wake: Makes the scheduler look again for those that wait.
        seen: What a caller sees of a node; raises `NotFound`. Blocking.
        now: Unix time in seconds.
        clock: The machines' time.
    """

    store: StoreThread
    studies: Studies
    runs: ActiveRuns
    wake: Callable[[], None]
    seen: Callable[[Caller, str], pb.Node]
    now: Callable[[], float]
    clock: Callable[[], float]

    async def evict(self, caller: Caller, request: pb.NodeRequest) -> pb.Node:
        """Shut a node out for good; in the federation it stays. Returns what the caller sees of it.

        Raises:
            NotFound: There is no such study that the caller sees, or no such node in one.
            IdentityError: The caller may not.
        """
        study = request.study
        if study not in self.studies.now() or not caller.may("read", study):
            raise NotFound(f"there is no study {study!r} of yours")
        caller.require("manage", study)
        call, store = self.store.call, self.store.store
        node = (await call(self.seen, caller, request.node)).node
        await call(store.set_setting, EVICTED, self.studies.with_evicted(study, node))
        detail = {"by": caller.name, "study": study}
        await call(store.add_event, EventRecord(self.now(), KIND, node=node, detail=detail))
        for run in self.runs.active.values():
            if study_of(run.run) == study:
                self.runs.exclude(run, node, self.clock())
        self.wake()
        return await call(self.seen, caller, node)
