"""Drives one pure machine: events in order, a tick when it wants one, and work beside the events.

It knows nothing of what the machine is for: whoever owns it says what is done for an action, and what a tick is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from covey.driver.coalescing import Coalescing

log = structlog.get_logger(room="driver")
E = TypeVar("E")
A = TypeVar("A")
E_contra = TypeVar("E_contra", contravariant=True)
A_co = TypeVar("A_co", covariant=True)


class Machine(Protocol[E_contra, A_co]):
    """A pure state machine: no I/O, no clock."""

    @property
    def done(self) -> bool:
        """Whether it is in a terminal state."""

    @property
    def wake_at(self) -> float | None:
        """When it wants a tick at the latest; None: only an event can move it."""

    def handle(self, event: E_contra) -> Sequence[A_co]:
        """Take one event; what is to be done, in order."""


class Recorder(Protocol):
    """Records what a machine is told and asks for. Its methods neither block nor raise."""

    def opened(self, machine: object) -> None:
        """The machine is about to be told its first event."""

    def took(self, machine: object, event: object, actions: Sequence[object]) -> None:
        """The machine took an event; nothing of `actions` is done yet."""

    def failed(self, event: object, error: Exception) -> None:
        """The machine raised this error at an event."""

    def closed(self) -> None:
        """Nothing more will come."""


class Driver(Generic[E, A]):
    """The events of one machine, and the work that it asks for.

    Args:
        do: Does what the machine asks for, in order; an action is done before the next one is.
        clock: The time in seconds, on the machine's clock.
        tick: Makes the event that says that time has passed.
        on_handled: Called after each event, when all its actions are done.
        recorder: Records the machine's events.
        repeats: The key of an event of which the machine needs to hear no more than once a second, as bytes come; None:
            it hears of it every time.
    """

    def __init__(
        self,
        do: Callable[[A], Awaitable[None]],
        *,
        clock: Callable[[], float],
        tick: Callable[[float], E],
        on_handled: Callable[[], None] = lambda: None,
        recorder: Recorder | None = None,
        repeats: Callable[[E], Hashable | None] = lambda event: None,
    ) -> None:
        self._do, self._clock, self._tick, self._on_handled = do, clock, tick, on_handled
        self._recorder, self._repeats = recorder, repeats
        self._coalescing = Coalescing[E]()
        self._machine: Machine[E, A] | None = None
        self._events: asyncio.Queue[E] = asyncio.Queue()
        self._work: set[asyncio.Task[None]] = set()
        self._crash: BaseException | None = None
        self._waiting = False

    def post(self, event: E) -> None:
        """Tell the machine something; it is taken in order, also if the machine is still to be made."""
        self._events.put_nowait(event)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Do something beside the events. What it raises comes out of `drive`, or is logged where that is over."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._reap)

    @property
    def is_quiet(self) -> bool:
        """Whether it waits for an event, and nothing is being done here that could become one."""
        return self._waiting and not self._work and self._events.empty()

    async def drive(self, machine: Machine[E, A], first: Iterable[E] = ()) -> None:
        """Give the machine the events `first`, then those that are posted, until it is done."""
        self._machine = machine
        if self._recorder is not None:
            self._recorder.opened(machine)
        for event in first:
            await self.take(event)
        while not machine.done:
            await self.take(await self._next_event(machine))
        if self._crash is not None:
            _log_lost(self._crash)

    async def take(self, event: E) -> None:
        """Give the machine an event now, before all that are posted: for what an action itself brings about."""
        machine = self._machine
        if machine is None:
            return
        key, now = self._repeats(event), self._clock()
        if key is not None and not self._coalescing.is_due(key, event, now):
            return
        if self._coalescing.holds and machine.wake_at is not None and machine.wake_at <= now:
            for held in self._coalescing.release(now):  # it may be the sign of life that the machine looks for now
                await self._give(machine, held)
        await self._give(machine, event)

    async def _give(self, machine: Machine[E, A], event: E) -> None:
        for action in self._handled(machine, event):
            await self._do(action)
        self._on_handled()

    def _handled(self, machine: Machine[E, A], event: E) -> Sequence[A]:
        if self._recorder is None:
            return machine.handle(event)
        try:
            actions = machine.handle(event)
        except Exception as error:
            self._recorder.failed(event, error)
            raise
        self._recorder.took(machine, event, actions)
        return actions

    async def settle(self) -> None:
        """Wait for the work beside the events."""
        await asyncio.gather(*self._work, return_exceptions=True)

    async def close(self) -> None:
        """Give up the work beside the events."""
        for task in self._work:
            task.cancel()
        await self.settle()
        if self._recorder is not None:
            self._recorder.closed()

    async def _next_event(self, machine: Machine[E, A]) -> E:
        if self._crash is not None:
            raise self._crash
        wake_at = machine.wake_at
        timeout_s = None if wake_at is None else max(0.0, wake_at - self._clock())
        self._waiting = True
        try:
            async with asyncio.timeout(timeout_s):
                return await self._events.get()
        except TimeoutError:
            return self._tick(self._clock())
        finally:
            self._waiting = False

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if self._crash is not None or (self._machine is not None and self._machine.done):
            _log_lost(error)
            return
        self._crash = error
        self.post(self._tick(self._clock()))


def _log_lost(error: BaseException) -> None:
    log.error("work beside the events failed, and nobody waits for it any more", exc_info=error)
