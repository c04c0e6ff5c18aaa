"""The asynchronous form of a federation and its runs: the same calls, awaited, in a thread beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from covey.client.connection import Connection
from covey.client.models.evaluations import Evaluation
from covey.client.reading.names import RunName, VersionName
from covey.client.specification import Specification
from covey.client.values import Change, Node, Round, Run, Status, Version
from covey.library.records import Records
from covey.library.run import FederatedRun

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_END = object()


class _Turns:
    """One call at a time: a connection is used by one thread at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def call(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        async with self._lock:
            return await asyncio.to_thread(work, *args, **kwargs)


class AsyncRun:
    """A run of a federation; `run` is the blocking form, for its properties."""

    def __init__(self, run: FederatedRun, turns: _Turns) -> None:
        self.run, self._turns = run, turns

    @property
    def value(self) -> Run:
        """What was known of it last."""
        return self.run.value

    async def refresh(self) -> AsyncRun:
        """Read it again; itself."""
        await self._turns.call(self.run.refresh)
        return self

    async def watch(self) -> AsyncIterator[Change]:
        """What changes, until the run has ended; other calls go on meanwhile."""
        changes = self.run.watch()
        try:
            while isinstance(change := await asyncio.to_thread(next, changes, _END), Change):
                yield change
        finally:
            with contextlib.suppress(ValueError):  # given up while a thread waits in it: it ends with the connection
                await asyncio.to_thread(changes.close)  # type: ignore[attr-defined]

    async def wait(self) -> AsyncRun:
        """Wait until it has ended; itself. Raises as `FederatedRun.wait`."""
        await asyncio.to_thread(self.run.wait, progress=False)
        return self

    async def rounds(self) -> Records[Round]:
        """Its rounds in order."""
        return await self._turns.call(self.run.rounds)

    async def updates(self, round: int | None = None) -> Records[dict[str, Any]]:
        """What each node answered."""
        return await self._turns.call(self.run.updates, round)

    async def metrics(self) -> Records[dict[str, Any]]:
        """A curve of each metric."""
        return await self._turns.call(self.run.metrics)

    async def model(
        self, version: VersionName = "newest", *, best: str = "", lowest: bool = False
    ) -> dict[str, Tensor]:
        """A version's `state_dict`; with `best`, that of the version with this metric's best value."""
        return await self._turns.call(self.run.model, version, best=best, lowest=lowest)

    async def continue_(
        self, rounds: int | None = None, *, spec: Specification | None = None, version: VersionName = "newest"
    ) -> AsyncRun:
        """Submit a run that begins with this one's model; the new run."""
        continued = await self._turns.call(self.run.continue_, rounds, spec=spec, version=version)
        return AsyncRun(continued, self._turns)

    async def evaluate(
        self,
        version: VersionName = "newest",
        *,
        nodes: Sequence[str] = (),
        local_baseline: bool = False,
        rounds: int | None = None,
        spec: Specification | None = None,
    ) -> Evaluation:
        """Let nodes evaluate this run's model on their own data; what they measured, as `FederatedRun.evaluate`."""
        return await self._turns.call(
            self.run.evaluate, version, nodes=nodes, local_baseline=local_baseline, rounds=rounds, spec=spec
        )

    async def evaluation(self) -> Evaluation:
        """What nodes measured in this run, which only evaluates."""
        return await self._turns.call(self.run.evaluation)

    async def export(self, to: str | Path, *, version: VersionName = "newest") -> Version:
        """Write a version as a safetensors file."""
        return await self._turns.call(self.run.export, to, version=version)

    async def stop(self) -> AsyncRun:
        """Stop it; itself."""
        await self._turns.call(self.run.stop)
        return self


class AsyncFederation:
    """What `async with covey.connect(...)` gives."""

    def __init__(self, connection: Connection) -> None:
        self.client, self._turns = connection, _Turns()

    async def submit(self, spec: Specification | Mapping[str, Any]) -> AsyncRun:
        """Check a specification and queue the run."""
        return self._as_run(await self._turns.call(self.client.submit, spec))

    async def run(self, name: RunName) -> AsyncRun:
        """A run by its id, or the newest of a name."""
        return self._as_run(await self._turns.call(self.client.run, name))

    async def runs(self, limit: int = 100) -> list[AsyncRun]:
        """The newest runs, the newest first."""
        return [self._as_run(run) for run in await self._turns.call(self.client.runs, limit)]

    async def nodes(self) -> Records[Node]:
        """All nodes, by name."""
        return Records(await self._turns.call(self.client.nodes))

    async def status(self) -> Status:
        """What the coordinator does now."""
        return await self._turns.call(self.client.status)

    def _as_run(self, run: Run) -> AsyncRun:
        return AsyncRun(FederatedRun(self.client, run), self._turns)
