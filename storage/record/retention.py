"""Which files are kept, and which nobody needs any more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal


class Retention(ABC):
    """Retention by what a run's specification keeps."""

    @abstractmethod
    def prune(
        self,
        run: str,
        *,
        versions: int,
        updates: int,
        metric: str,
        goal: Literal["max", "min"],
        pinned: Sequence[int] = (),
    ) -> list[str]:
        """Apply retention: let the files go that a run does not need any more. Every record stays for ever.

        Kept are the files of the newest `versions`, of the best by `metric` (by `nodes/METRIC` where no kept
        version has it; of equals the newer) and of `pinned` ones, and the payloads of open rounds and of the
        newest `updates` committed ones. The rest is marked as not kept, version 0 too. Of an asynchronous run also
        every version that an open assignment starts from, and every version and payload that its policy's state
        refers to.

        Returns the digests of files that no kept record of any run needs any more. Deleting them is the
        caller's.
        """

    @abstractmethod
    def delete_run(self, run: str) -> list[str]:
        """Delete all that is recorded of a run that has ended, but its events.

        Returns the digests of files that no kept record of any run needs any more. Deleting them is the caller's.

        Raises:
            Conflict: It has not ended.
            NotFound: No such run.
        """

    @abstractmethod
    def referenced_digests(self, kind: Literal["version", "update"] | None = None) -> set[str]:
        """Digests of every file that some kept record needs (for cleaning up after a crash), or one of this kind."""
