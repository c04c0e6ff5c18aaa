import asyncio
from collections.abc import AsyncGenerator
from typing import cast

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from covey import errors
from covey.errors import PUBLIC_TEXTS, CoveyError, Stalled, StoreUnavailable
from covey.wire.errors import CODE_KEY, STATUSES, from_rpc_error, public, translated, translated_stream

SECRET = "password=hunter2 at /srv/covey/keys"
CODES = sorted(code for code, kind in errors.by_code().items() if kind.__module__ == "covey.errors")
PRIVATE = ["internal", "obstructed", "disk-full", "store", "store-unavailable", "fenced", "worker", "worker-died"]
UNARY, STREAM = "/covey.test/Unary", "/covey.test/Stream"


class DiskFull(StoreUnavailable):
    code = "disk-full-of-somebody"


class Service:
    """Raises what it is told to."""

    def __init__(self):
        self.error = None
        self.reached = asyncio.Event()
        self.cleaned_up = asyncio.Event()

    async def unary(self, request, context):
        if request == b"abort":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "its own doing")
        if self.error:
            raise self.error
        return b"done"

    async def stream(self, request, context):
        try:
            for number in range(3 if request != b"endless" else 1 << 60):
                yield b"%d" % number
                self.reached.set()
            if self.error:
                raise self.error
        finally:
            self.cleaned_up.set()


@pytest.fixture
def service():
    return Service()


@pytest.fixture
async def channel(service):
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(translated(service.unary)),
        "Stream": grpc.unary_stream_rpc_method_handler(translated_stream(service.stream)),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("covey.test", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as made:
        yield made
    await server.stop(None)


async def failure(channel, request=b""):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(UNARY)(request, timeout=10)
    return caught.value


def test_the_table_has_every_code_and_no_other():
    assert sorted(STATUSES) == CODES


@pytest.mark.parametrize("code", CODES)
async def test_an_error_comes_out_as_itself(channel, service, code):
    kind = errors.by_code()[code]
    service.error = kind(SECRET)
    error = await failure(channel)
    assert error.code() == STATUSES[code] != grpc.StatusCode.UNKNOWN
    assert dict(error.trailing_metadata())[CODE_KEY] == code
    there = from_rpc_error(error)
    assert type(there) is kind
    assert (SECRET in str(there)) == (code not in PRIVATE)
    assert str(there)


async def test_what_nobody_raised_on_purpose_stays_inside_but_in_the_log(channel, service):
    service.error = ZeroDivisionError(SECRET)
    with capture_logs() as logs:
        error = await failure(channel)
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(error)
    assert dict(error.trailing_metadata())[CODE_KEY] == "internal"
    assert logs[0]["exc_info"] is service.error


async def test_a_private_message_is_in_the_log(channel, service):
    service.error = StoreUnavailable(SECRET)
    with capture_logs() as logs:
        await failure(channel)
    assert logs[0]["error"] == SECRET


async def test_an_error_of_a_kind_outside_the_table_counts_as_its_parent(channel, service):
    service.error = DiskFull(SECRET)
    error = await failure(channel)
    assert type(from_rpc_error(error)) is StoreUnavailable
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("character", ["a", "é", "漢", "\U0001f600", "\n", "\ud800"])
async def test_a_long_text_is_cut_and_the_code_still_arrives(channel, service, character):
    service.error = Stalled(character * 20_000)
    error = await failure(channel)
    assert type(from_rpc_error(error)) is Stalled
    assert 0 < len(error.details()) <= 2000


async def test_a_stream_ends_with_the_error_after_what_was_sent(channel, service):
    service.error = Stalled("too slow")
    call = channel.unary_stream(STREAM)(b"", timeout=10)
    assert [await call.read() for _ in range(3)] == [b"0", b"1", b"2"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert (type(from_rpc_error(caught.value)), caught.value.details()) == (Stalled, "too slow")


async def test_without_an_error_nothing_is_changed(channel):
    assert await channel.unary_unary(UNARY)(b"", timeout=10) == b"done"
    assert [item async for item in channel.unary_stream(STREAM)(b"", timeout=10)] == [b"0", b"1", b"2"]


async def test_a_methods_own_abort_is_left_alone(channel):
    error = await failure(channel, b"abort")
    assert (error.code(), error.details()) == (grpc.StatusCode.OUT_OF_RANGE, "its own doing")


async def test_a_stream_cleans_up_when_its_client_goes_away(channel, service):
    call = channel.unary_stream(STREAM)(b"endless", timeout=60)
    assert await call.read() == b"0"
    await service.reached.wait()
    call.cancel()
    await asyncio.wait_for(service.cleaned_up.wait(), 10)


async def test_closing_the_wrapper_closes_the_method_at_once(service):
    wrapped = cast(AsyncGenerator[bytes], translated_stream(service.stream)(b"endless", None))
    assert await anext(wrapped) == b"0"
    await wrapped.aclose()
    assert service.cleaned_up.is_set()


async def test_a_failure_of_grpc_itself_is_an_error_too():
    async with grpc.aio.insecure_channel("127.0.0.1:1") as nowhere:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = nowhere.unary_unary(UNARY)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(b"", timeout=10)
    error = from_rpc_error(caught.value)
    assert type(error) is CoveyError
    assert str(error) == "the connection broke, or there is none"


def test_what_is_public_of_any_exception():
    assert public(KeyError(SECRET)) == (grpc.StatusCode.INTERNAL, PUBLIC_TEXTS["internal"], "internal")
