"""One table from error codes to gRPC statuses, what a caller may see of an error, and the translation both ways."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
import grpc.aio
import structlog

from covey.errors import PUBLIC_TEXTS, CoveyError, by_code
from covey.texts import printable

log = structlog.get_logger(room="wire")
Status = grpc.StatusCode
CODE_KEY = "covey-code"
"""Trailing metadata with the error's code."""
MAX_TEXT_BYTES = 2000
"""Of a public text: gRPC drops a status whose metadata, percent-encoded, come to more than 8 KiB."""

STATUSES: dict[str, grpc.StatusCode] = {
    "invalid-spec": Status.INVALID_ARGUMENT,
    "unknown-plugin": Status.INVALID_ARGUMENT,
    "layout-mismatch": Status.INVALID_ARGUMENT,
    "late": Status.FAILED_PRECONDITION,
    "not-ready": Status.UNAVAILABLE,
    "invalid-update": Status.INVALID_ARGUMENT,
    "corrupt-chunk": Status.DATA_LOSS,
    "limit-exceeded": Status.RESOURCE_EXHAUSTED,
    "stalled": Status.DEADLINE_EXCEEDED,
    "transfer-failed": Status.ABORTED,
    "no-part": Status.FAILED_PRECONDITION,
    "declined": Status.FAILED_PRECONDITION,
    "not-now": Status.FAILED_PRECONDITION,
    "identity": Status.PERMISSION_DENIED,
    "not-found": Status.NOT_FOUND,
    "conflict": Status.ALREADY_EXISTS,
    "version": Status.FAILED_PRECONDITION,
    "task-failed": Status.FAILED_PRECONDITION,
    "out-of-memory": Status.RESOURCE_EXHAUSTED,
    "store-unavailable": Status.UNAVAILABLE,
    "obstructed": Status.UNAVAILABLE,
    "disk-full": Status.UNAVAILABLE,
    "fenced": Status.UNAVAILABLE,
    "store": Status.INTERNAL,
    "worker": Status.INTERNAL,
    "worker-died": Status.UNAVAILABLE,
    "worker-stalled": Status.DEADLINE_EXCEEDED,
    "run-failed": Status.FAILED_PRECONDITION,
    "ledger": Status.FAILED_PRECONDITION,
    "internal": Status.INTERNAL,
}
"""Of each code; an error that has none of these is of its parent's."""

_BROKEN = {
    Status.UNAVAILABLE: "the connection broke, or there is none",
    Status.DEADLINE_EXCEEDED: "no answer came in time",
    Status.CANCELLED: "the call was cut off",
}
"""What gRPC says by itself, in words; its own texts are about its insides."""


def public(error: Exception) -> tuple[grpc.StatusCode, str, str]:
    """What a caller may see of an error: status, text, code (its parent's where the table has none)."""
    codes = (vars(kind).get("code") for kind in type(error).__mro__ if issubclass(kind, CoveyError))
    code = next((str(code) for code in codes if code in STATUSES), "internal")
    text = PUBLIC_TEXTS.get(code) or str(error)
    return STATUSES[code], text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore"), code


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    """End a call with an error: public text to the caller, details to the log."""
    status, text, code = public(error)
    if isinstance(error, CoveyError):
        log.warning("call refused", code=code, error=str(error), peer=context.peer())
    else:
        log.error("call failed", exc_info=error, peer=context.peer())
    await context.abort(status, text, ((CODE_KEY, code),))


def translated(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wrap a method that answers once, so that its errors become statuses."""

    @functools.wraps(method)
    async def wrapper(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await method(request, context)
        except grpc.aio.BaseError:
            raise
        except Exception as error:
            await abort(context, error)

    return wrapper


def translated_stream(method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """Wrap a method that answers with a stream, so that its errors become statuses."""

    @functools.wraps(method)
    async def wrapper(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            # Else the method would clean up only when the garbage collector finds it, after a client left.
            async with contextlib.aclosing(cast(AsyncGenerator[Any], method(request, context))) as items:
                async for item in items:
                    yield item
        except grpc.aio.BaseError:
            raise
        except Exception as error:
            await abort(context, error)

    return wrapper


def from_rpc_error(error: grpc.RpcError) -> CoveyError:
    """The error that the other side meant, on the caller's side."""
    trailing: Any = error.trailing_metadata()
    code = str(dict(trailing or ()).get(CODE_KEY, ""))
    if not code and error.code() in _BROKEN:
        return CoveyError(_BROKEN[error.code()])
    return by_code().get(code, CoveyError)(printable(error.details() or error.code().name))
