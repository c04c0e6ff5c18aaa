"""How many private updates this node has made in each run, and under which terms: what its privacy has cost."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from covey.errors import StoreError
from covey.node.assignments.record.durable import write_durably


class Spending:
    """A count for each run, and its terms, in a file that is written before an update can be sent.

    It outlasts the run: a coordinator that says that a run has ended, and then goes on with it, gains nothing.

    Args:
        folder: Where the file is; made if it is missing.

    Raises:
        StoreError: There is a file, and it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "privacy.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._updates, self._terms = _read(self._path)

    def updates_of(self, run: str) -> int:
        """How many of a run, those that were never delivered too. Does not block."""
        return self._updates.get(run, 0)

    def note(self, run: str) -> None:
        """One more, durably; there is no way back. Blocking.

        Raises:
            StoreError: The disk is full, or refuses; then it is not noted.
        """
        with self._lock:
            updates = {**self._updates, run: self.updates_of(run) + 1}
            self._write(updates, self._terms)
            self._updates = updates

    def terms(self, run: str, given: str) -> str:
        """The terms under which a run began here: those given, if it begins now. Durable. Blocking.

        Raises:
            StoreError: The disk is full, or refuses.
        """
        with self._lock:
            if run not in self._terms:
                terms = {**self._terms, run: given}
                self._write(self._updates, terms)
                self._terms = terms
            return self._terms[run]

    def _write(self, updates: dict[str, int], terms: dict[str, str]) -> None:
        write_durably(self._path, json.dumps({"private_updates": updates, "terms": terms}))


def _read(path: Path) -> tuple[dict[str, int], dict[str, str]]:
    try:
        data = json.loads(path.read_text())
        updates = {str(run): int(number) for run, number in data["private_updates"].items()}
        return updates, {str(run): str(text) for run, text in data["terms"].items()}
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}, which says how much privacy this node has spent in each run, cannot be read ({error!r}). Restore "
            "it or make it readable; without it, runs would count from nothing again"
        ) from error
