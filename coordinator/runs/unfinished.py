"""Updates of which only a part has come: what becomes of that part when nobody waits for the rest any more."""

from __future__ import annotations

import asyncio

import structlog

from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.ports import RunServices
from covey.errors import StoreError

log = structlog.get_logger(room="coordinator")
EVERY_S = 10.0


class UnfinishedUploads:
    """Keeps what came of a file as long as its sender may go on, and not longer: a model may be large.

    Args:
        services: What runs are given.
        runs: The active ones.
    """

    def __init__(self, services: RunServices, runs: ActiveRuns) -> None:
        self._services, self._runs = services, runs
        self._begun: dict[str, tuple[ActiveRun, str, int]] = {}
        """By file: the run, the node and the round for which it was begun last; for those of this process."""

    def begun(self, digest: str, run: ActiveRun, node: str, number: int) -> None:
        """A file is coming for a node's update in a round."""
        self._begun[digest] = run, node, number

    async def keep_tidy(self) -> None:
        """Tidy up now and then, until cancelled; while the record is away, all stays."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.tidy()
            except StoreError as error:
                log.debug("unfinished files cannot be dropped now", error=str(error))

    async def tidy(self) -> None:
        """Drop what came for rounds that are over; while no run is in progress, what came before a restart, too."""
        files, store = self._services.files, self._services.store
        coming = await asyncio.to_thread(files.unfinished)
        over = {digest for digest in self._begun if not self._is_awaited(digest)}
        if coming and not await store.call(store.store.count_runs, ("running",)):
            over |= coming
        await asyncio.to_thread(files.forget, over & coming)
        for digest in over - await asyncio.to_thread(files.unfinished):
            self._begun.pop(digest, None)

    def _is_awaited(self, digest: str) -> bool:
        run, node, number = self._begun[digest]
        return self._runs.of(run.run.run) is run and run.expects(node, number)
