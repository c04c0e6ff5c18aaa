"""What stands before every method of a listener: who calls, how many calls, and for how long they may say nothing.

A method that takes one message would wait for it for as long as the caller likes: gRPC has no limit, and calls an
asynchronous method only then. So every method is served as one that takes and gives a stream, which is the same on the
wire, and begins at once; the first message is then waited for here, and so is the caller who takes no answer.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, cast

import grpc
import grpc.aio
import structlog
from typing_extensions import override

from covey.errors import CoveyError, IdentityError, LimitExceeded, Stalled, TransferError
from covey.wire.channels import Context
from covey.wire.errors import CODE_KEY, public
from covey.wire.listeners.buckets import Buckets
from covey.wire.listeners.call_limits import Caller, CallLimits
from covey.wire.listeners.connections import Connections

log = structlog.get_logger(room="wire")
FIRST_MESSAGE_S = 10.0
FIRST_CHUNK_S = 30.0
"""The same where a file comes: a chunk may take as long over a slow link."""
ANSWER_S = 30.0
"""How long a caller may leave an answer lying."""
STRIKES = (200, 10.0)
"""So many calls of one caller may be refused at once, and a second after that, before its connection is ended."""
MAX_PEERS = 64
"""Of one caller so many connections are remembered."""
SAY_EVERY_S = 10.0
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]]


@dataclass
class _Call:
    caller: Caller
    peer: str
    waits: asyncio.Timeout | None = None
    """For the first message."""


class Guard(grpc.aio.ServerInterceptor):
    """Interceptor of one listener.

    Args:
        who: Whose call it is; raises `IdentityError` for who may not call at all.
        limits: How many calls.
        connections: Ends connections.
        clock: Monotonic seconds.
        first_message_s: How long a call may go without its first message.
        answer_s: How long an answer may go without being taken.
    """

    def __init__(
        self,
        who: Callable[[Context], Caller],
        limits: CallLimits,
        connections: Connections,
        *,
        clock: Callable[[], float] = time.monotonic,
        first_message_s: float = FIRST_MESSAGE_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._who, self._limits, self._connections, self._clock = who, limits, connections, clock
        self._first_message_s, self._answer_s = first_message_s, answer_s
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count()
        self._strikes = Buckets(*STRIKES)
        self._peers: dict[Caller, OrderedDict[str, None]] = {}
        self._guarded: dict[Handler, Handler] = {}
        self._unsaid, self._say_at = 0, 0.0

    def end(self, caller: Caller) -> None:
        """End all connections of a caller, with all its calls, in a moment: it may still read why."""
        peers = {call.peer for call in self._calls.values() if call.caller == caller}
        for peer in peers | set(self._peers.pop(caller, ())):
            self._connections.end_soon(peer)

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """What serves a call: the method's own handler, behind this guard."""
        handler = await continuation(details)
        if handler is None:
            return handler
        guarded = self._guarded.get(handler)
        if guarded is None:
            guarded = self._guarded[handler] = self._guard(handler)
        return guarded

    def _guard(self, handler: Handler) -> Handler:
        async def serve(requests: AsyncIterator[Any], context: Context) -> None:
            number = next(self._numbers)
            call = await self._let_in(number, context)
            try:
                await self._serve(handler, number, call, requests, context)
            finally:
                self._calls.pop(number, None)
                self._limits.leave(number)

        return grpc.stream_stream_rpc_method_handler(
            serve, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )

    async def _let_in(self, number: int, context: Context) -> _Call:
        peer, now = context.peer(), self._clock()
        try:
            caller = self._who(context)
        except IdentityError as error:
            self._connections.end_soon(peer)
            await self._refuse(context, error)
        try:
            silent = self._limits.enter(number, caller, now)
        except LimitExceeded as error:
            if not self._strikes.take(caller, now):
                self._connections.end_soon(peer)
            await self._refuse(context, error)
        if silent is not None and (other := self._calls.pop(silent, None)) is not None and other.waits is not None:
            other.waits.reschedule(asyncio.get_running_loop().time())
        self._remember(caller, peer)
        call = self._calls[number] = _Call(caller, peer)
        return call

    def _remember(self, caller: Caller, peer: str) -> None:
        peers = self._peers.setdefault(caller, OrderedDict())
        peers[peer] = None
        peers.move_to_end(peer)
        if len(peers) > MAX_PEERS:
            peers.popitem(last=False)

    async def _serve(
        self, handler: Handler, number: int, call: _Call, requests: AsyncIterator[Any], context: Context
    ) -> None:
        messages: AsyncIterator[Any] | Any
        try:
            first = await self._first(handler, call, requests)
        except CoveyError as error:
            await self._refuse(context, error)
        self._limits.spoke(number)
        messages = _after(first, requests) if handler.request_streaming else first[0]
        answer = _behaviour(handler)(messages, context)
        if inspect.isasyncgen(answer):
            async with aclosing(cast(AsyncGenerator[Any], answer)) as replies:
                async for reply in replies:
                    await self._give(call, context, reply)
        elif handler.response_streaming:  # it writes by itself
            await answer
        else:
            await self._give(call, context, await answer)

    async def _first(self, handler: Handler, call: _Call, requests: AsyncIterator[Any]) -> list[Any]:
        """The first message; none: the caller has none, and says so."""
        upload = handler.request_streaming and not handler.response_streaming
        limit_s = max(FIRST_CHUNK_S, self._first_message_s) if upload else self._first_message_s
        try:
            async with asyncio.timeout(limit_s) as call.waits:
                return [await anext(aiter(requests))]
        except TimeoutError:
            raise Stalled(f"no message came for {limit_s:g} s, or too many calls were opened") from None
        except StopAsyncIteration:
            if handler.request_streaming:
                return []
            raise TransferError("the call ended before its message") from None
        finally:
            call.waits = None

    async def _give(self, call: _Call, context: Context, reply: Any) -> None:
        try:
            async with asyncio.timeout(self._answer_s):
                await context.write(reply)
        except TimeoutError:
            # Its end would wait behind the answer that is not taken.
            self._connections.end_soon(call.peer)
            raise asyncio.CancelledError from None

    async def _refuse(self, context: Context, error: CoveyError) -> NoReturn:
        """End a call; said in the log, but not as often as it is done."""
        self._unsaid += 1
        if self._clock() >= self._say_at:
            log.warning("calls refused", calls=self._unsaid, peer=context.peer(), code=error.code, last=str(error))
            self._unsaid, self._say_at = 0, self._clock() + SAY_EVERY_S
        status, text, code = public(error)
        await context.abort(status, text, ((CODE_KEY, code),))
        raise AssertionError("unreachable")


def _behaviour(handler: Handler) -> Callable[[Any, Context], Any]:
    return cast(
        Callable[[Any, Context], Any],
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream,
    )


async def _after(first: list[Any], rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    for message in first:
        yield message
    if first:
        async for message in rest:
            yield message
