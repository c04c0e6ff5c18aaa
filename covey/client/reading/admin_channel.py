"""One mutually authenticated channel to a coordinator's admin service, and why there is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio

from covey.client.errors import Unreachable
from covey.errors import CoveyError, IdentityError
from covey.protos.admin_pb2_grpc import AdminStub
from covey.texts import read_pem
from covey.wire.errors import CODE_KEY, from_rpc_error
from covey.wire.identities.authority import COORDINATOR_NAME
from covey.wire.identities.identity import Identity
from covey.wire.proxies import proxy_options
from covey.wire.reach import NOT_SERVED, WRONG_PORT, why_unreachable

if TYPE_CHECKING:
    from google.protobuf.message import Message

DEADLINE_S = 10.0
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""Statuses that no handler gave: there is no connection, or the coordinator stops."""
MAX_RECONNECT_MS = 1000


class AdminChannel:
    """The admin service of one coordinator. Calls raise the `CoveyError` that the coordinator names.

    It is used in one event loop, the one that runs when it makes its first call.
    """

    def __init__(self, address: str, folder: Path) -> None:
        """Read the identity; the channel is opened at the first call.

        Args:
            address: The coordinator's main listener, `host:port`.
            folder: The caller's identity (`tls.key`, `tls.crt`, `authority.crt`, `federation.json`).

        Raises:
            IdentityError: The folder is incomplete.
        """
        self.address, self.folder = address, folder
        self._credentials = _credentials(folder)
        self._channel: grpc.aio.Channel | None = None

    @property
    def identity(self) -> Identity:
        """Who the caller is, and the federation and coordinator that enrolled it."""
        return Identity.load(self.folder)

    async def close(self) -> None:
        """Close the channel; calls that are under way are cancelled."""
        if self._channel is not None:
            await self._channel.close()

    async def call(self, method: str, request: Message, *, deadline_s: float = DEADLINE_S) -> Any:
        """Call one unary method of `covey.v1.Admin` by name; its reply.

        Raises:
            Unreachable: No answer within the deadline; where the own certificate explains it, IdentityError.
            CoveyError: What the coordinator said, as the class of its code.
        """
        try:
            return await getattr(self._stub(), method)(request, timeout=deadline_s)
        except grpc.RpcError as error:
            raise await self._explained(error) from error

    async def upload(
        self, method: str, first: Message, others: AsyncIterator[Message], *, deadline_s: float = DEADLINE_S
    ) -> Any:
        """Call a method that answers its first message by asking for the others; its last reply.

        Raises:
            CoveyError: As `call`.
        """
        call = getattr(self._stub(), method)(timeout=deadline_s)
        try:
            await call.write(first)
            await call.read()
            # A call that is over before all is sent has its error already.
            with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
                async for message in others:
                    await call.write(message)
                await call.done_writing()
            return await call.read()
        except grpc.RpcError as error:
            raise await self._explained(error) from error
        finally:
            call.cancel()

    async def stream(self, method: str, request: Message) -> AsyncGenerator[Any]:
        """Call one streaming method; its messages. No deadline: a run may last for days.

        Raises:
            CoveyError: As `call`.
        """
        call = getattr(self._stub(), method)(request)
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise await self._explained(error) from error
        finally:
            call.cancel()

    def _stub(self) -> Any:
        if self._channel is None:
            self._channel = grpc.aio.secure_channel(
                self.address,
                self._credentials,
                [
                    ("grpc.ssl_target_name_override", COORDINATOR_NAME),
                    ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
                    *proxy_options(self.address),
                ],
            )
        return cast(Any, AdminStub)(self._channel)

    async def _explained(self, error: grpc.RpcError) -> CoveyError:
        status = error.code()
        said_by_covey = CODE_KEY in dict(cast(Any, error.trailing_metadata()) or ())
        if status == NOT_SERVED and not said_by_covey:
            return Unreachable(f"{self.address} {WRONG_PORT}")
        if said_by_covey or status not in AWAY:
            return from_rpc_error(error)
        reason = self.identity.explain()
        if reason:
            return IdentityError(reason)
        why = await why_unreachable(self.address, read_pem(self.folder / "authority.crt"))
        return Unreachable(f"the coordinator at {self.address} does not answer: {why}")


def _credentials(folder: Path) -> grpc.ChannelCredentials:
    try:
        key, certificate, authority = (read_pem(folder / name) for name in ("tls.key", "tls.crt", "authority.crt"))
    except OSError as error:
        raise IdentityError(
            f"{folder} is not an identity: {error.strerror} ({error.filename}); "
            "get one with: covey coordinator admin issue NAME --to DIR"
        ) from error
    return grpc.ssl_channel_credentials(authority, key, certificate)
