"""A node at work: hears its coordinator, asks the machine what to do, and does that. All of it through ports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from covey import messages as msg
from covey.driver.ending import end
from covey.node.assignments import events as ev
from covey.node.assignments.conversation import Conversation
from covey.node.assignments.executor import Executor
from covey.node.assignments.machine import AssignmentMachine
from covey.node.services import NodeServices

log = structlog.get_logger(room="node")
REPORT_S = 3.0
"""How often the coordinator hears of an assignment that it waits."""


class NodeActor:
    """One node's work. Everything happens on the event loop; `receive` and `lost` never block.

    Args:
        services: The node's.
        on_ended: Told of each assignment that was begun, when its work has ended in whatever way.
    """

    def __init__(self, services: NodeServices, on_ended: Callable[[msg.Assignment], None] = lambda _: None) -> None:
        self._services, self._on_ended = services, on_ended
        self._machine = AssignmentMachine()
        self._executor = Executor(services)
        self._talk: Conversation | None = None
        self._work: asyncio.Task[None] | None = None
        self._tidying: set[asyncio.Task[None]] = set()
        if services.recorder is not None:
            services.recorder.opened(self._machine)

    @property
    def busy(self) -> bool:
        """Whether it is working."""
        return self._machine.working is not None

    def held_model(self, run: str) -> str:
        """Digest of the file of the run's newest model that is here; empty: none."""
        return self._executor.held.model(run)

    # -- what happens ---------------------------------------------------------------------------------------------

    def receive(self, message: msg.CoordinatorMessage) -> None:
        """Take a message of the coordinator's."""
        match message:
            case msg.Assignment():
                self._handle(ev.Assigned(message))
            case msg.Cancel():
                log.info("the coordinator cancels", run=message.run, round=message.round, reason=message.reason)
                self._handle(ev.Cancelled(message.run, message.round))
            case msg.DownloadGrant() | msg.ModelElsewhere() | msg.UploadGrant() | msg.Receipt() | msg.Refusal():
                self._handle(ev.Answered(message))
            case msg.Welcome():
                self._services.metrics.connected.set(1)
                self._services.metrics.sessions.inc()
            case msg.Goodbye():
                log.info("the coordinator ends the session", code=message.code, reason=message.reason)

    def lost(self) -> None:
        """The session was lost."""
        self._services.metrics.connected.set(0)
        self._handle(ev.Lost())

    async def report_waiting(self) -> None:
        """Say every few seconds what is waiting, until cancelled."""
        while True:
            await self._services.clock.sleep(REPORT_S)
            self._handle(ev.ReportDue())

    async def stop(self) -> None:
        """Give up what is in progress and what waits; nothing is begun any more."""
        self._machine = AssignmentMachine()
        if self._services.recorder is not None:
            self._services.recorder.closed()
        tasks = [task for task in (self._work, *self._tidying) if task is not None]
        await end(tasks)

    # -- what is done ---------------------------------------------------------------------------------------------

    def _handle(self, event: ev.Event) -> None:
        actions = self._machine.handle(event)
        if self._services.recorder is not None:
            self._services.recorder.took(self._machine, event, actions)
        for action in actions:
            self._do(action)

    def _do(self, action: ev.Action) -> None:
        match action:
            case ev.Start(assignment=assignment):
                self._start(assignment)
            case ev.Stop():
                if self._work is not None:
                    self._work.cancel()
            case ev.Send(message=message):
                self._services.link.send(message)
            case ev.Drop(assignment=assignment):
                self._conversation(assignment).ended("cancelled")
            case ev.Forget(run=run):
                self._spawn(self._executor.forget(run))
            case ev.Renew() | ev.Tell() | ev.AskAgain():
                self._pass_on(action)

    def _pass_on(self, action: ev.Renew | ev.Tell | ev.AskAgain) -> None:
        if self._talk is None:
            return
        match action:
            case ev.Renew(assignment=assignment):
                self._talk.assignment = assignment
            case ev.Tell(answer=answer):
                self._talk.answered(answer)
            case ev.AskAgain():
                self._talk.ask_again()

    def _conversation(self, assignment: msg.Assignment) -> Conversation:
        return Conversation(self._services, assignment, lambda stage, update: self._handle(ev.Advanced(stage, update)))

    def _start(self, assignment: msg.Assignment) -> None:
        talk = self._talk = self._conversation(assignment)
        self._work = asyncio.get_running_loop().create_task(self._executor.do(talk))
        self._work.add_done_callback(lambda task: self._ended(task, talk))

    def _ended(self, task: asyncio.Task[None], talk: Conversation) -> None:
        if task.cancelled():  # perhaps before it began, so that it could not say so itself
            talk.ended("cancelled")
        elif task.exception() is not None:
            log.error("work ended badly", exc_info=task.exception())
        self._on_ended(talk.assignment)
        self._work = self._talk = None
        self._handle(ev.Ended())

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tidying.add(task)
        task.add_done_callback(self._tidied)

    def _tidied(self, task: asyncio.Task[None]) -> None:
        self._tidying.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a run's files could not be dropped", exc_info=task.exception())
