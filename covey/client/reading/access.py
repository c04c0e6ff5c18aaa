"""The ways to a federation, opened when needed: its running coordinator, or the record in the data directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from covey.client.loop import LoopThread
from covey.client.reading.admin_channel import DEADLINE_S, AdminChannel
from covey.client.reading.remote import RemoteRecord
from covey.client.target import Target

if TYPE_CHECKING:
    from covey.client.reading.record import Record


class Access:
    """Of one connection, with the thread that its calls run in.

    Args:
        target: Which coordinator.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self.loop = LoopThread()
        self._channel: AdminChannel | None = None
        self._record: Record | None = None

    def close(self) -> None:
        """Close what is open, and end the thread."""
        try:
            if self._channel is not None:
                self.loop.run(self._channel.close())
            if self._record is not None:
                self.loop.run(self._record.close())
        finally:
            self._channel = self._record = None
            self.loop.close()

    def call(self, method: str, request: Any, deadline_s: float = DEADLINE_S) -> Any:
        """Ask the running coordinator; its reply.

        Raises:
            Unreachable: No coordinator is running.
            CoveyError: What it answers.
        """
        if self._channel is None:
            self._channel = self.channel_of_its_own()
        return self.loop.run(self._channel.call(method, request, deadline_s=deadline_s))

    def upload(self, method: str, first: Any, others: AsyncIterator[Any], deadline_s: float) -> Any:
        """The same of a method that asks for more once it has looked at the first message; its last reply."""
        if self._channel is None:
            self._channel = self.channel_of_its_own()
        return self.loop.run(self._channel.upload(method, first, others, deadline_s=deadline_s))

    def channel_of_its_own(self) -> AdminChannel:
        """A channel to the running coordinator for the caller alone, who closes it. Raises `Unreachable`: none runs."""
        address = self._target.address()
        if address is None:
            raise self._target.not_running()
        return AdminChannel(address, self._target.identity_folder())

    def record(self) -> Record:
        """What only reads: through the running coordinator, or else from the data directory."""
        if self._record is None:
            self._record = self._open_record()
        return self._record

    def _open_record(self) -> Record:
        data_dir = self._target.data_dir
        if self._channel is None and data_dir is not None and self._target.address() is None:
            from covey.client.reading.stored import StoredRecord  # the database's library takes a while to import

            return StoredRecord(data_dir)
        self._channel = self._channel or self.channel_of_its_own()
        return RemoteRecord(self._channel)
