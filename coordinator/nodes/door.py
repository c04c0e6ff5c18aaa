"""What stands before the coordinator's two listeners: who may call, how often, and with how many calls at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import grpc
import grpc.aio
from typing_extensions import override

from covey.coordinator.nodes.members import Members
from covey.wire.channels import Context, Options, peer_identity, server_options
from covey.wire.listeners.call_limits import Allowance, Caller, CallLimits
from covey.wire.listeners.connections import Connections, site_of
from covey.wire.listeners.guard import Continuation, Guard, Handler

NODE, ADMIN, AUDITOR, MEMBER, STRANGER = "node", "admin", "auditor", "member", "stranger"
MAIN: Mapping[str, Allowance] = {
    # A session, a transfer each way over several connections, a renewal, a look at its health; and as much again while
    # connections are replaced.
    NODE: Allowance(each=24, total=3072),
    # A watch holds a call for as long as a run takes. No node can take this room.
    ADMIN: Allowance(each=64, total=512),
    AUDITOR: Allowance(each=32, total=256),
    MEMBER: Allowance(each=32, total=256),
}
ENROLMENT: Mapping[str, Allowance] = {STRANGER: Allowance(each=16, total=512, begin=(1000, 200.0))}
MOST_CALLS = 5120
"""Of a listener, refused ones that are just ending among them: more than all allowances together."""
MAIN_CONNECTIONS, ENROLMENT_CONNECTIONS = 4096, 256
"""So many connections may one address have: many nodes may be behind one."""
ENROL = "/covey.v1.Enrolment/"
"""How the methods begin that whoever has a token may call."""


def main_options() -> Options:
    """Of the main listener."""
    return server_options()


def enrolment_options() -> Options:
    """Of the enrolment listener: who is there has one question."""
    return server_options(streams=4, idle_s=10.0, age_s=60.0)


def main_guard(members: Members, clock: Callable[[], float], connections: Connections) -> Guard:
    """Of the main listener: calls are counted by the name and role of a certificate that is on record."""

    def who(context: Context) -> Caller:
        peer = peer_identity(context)
        members.admit(peer, clock())
        return Caller(peer.role, peer.name)

    return Guard(who, CallLimits(MAIN), connections)


def enrolment_guard(connections: Connections) -> Guard:
    """Of the enrolment listener: calls are counted by address."""
    return Guard(lambda context: Caller(STRANGER, site_of(context.peer())), CallLimits(ENROLMENT), connections)


class OneDoor(grpc.aio.ServerInterceptor):
    """Of a main listener where enrolment is, too: each service has its own guard, and strangers have no other service.

    Who comes in here has shown a certificate of the authority. That of a join token names no role, so that the main
    guard refuses its owner; the enrolment guard looks at nobody's.
    """

    def __init__(self, main: Guard, enrolment: Guard) -> None:
        self._main, self._enrolment = main, enrolment

    @override
    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        """What serves a call: behind its service's guard."""
        guard = self._enrolment if details.method.startswith(ENROL) else self._main
        return await guard.intercept_service(continuation, details)


def end_all(guard: Guard, name: str) -> None:
    """End the connections of somebody on record, whatever the role, with all calls."""
    for role in MAIN:
        guard.end(Caller(role, name))
