"""Receipts: what the coordinator signed for updates that it had, kept for audits."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import structlog

MAX_BYTES = 1 << 26
"""Of one run's receipts, some 100,000 of them; no more are kept."""
_RUN = re.compile(r"[0-9A-Za-z-]{1,64}")
log = structlog.get_logger(room="node")


class Receipts:
    """A file of JSON lines for each run, `{"statement", "signature"}`, that is only ever appended to.

    Args:
        folder: Where; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed = False

    def path(self, run: str) -> Path:
        """The file of a run, whose id may be anything."""
        name = run if _RUN.fullmatch(run) else hashlib.sha256(run.encode()).hexdigest()
        return self._folder / f"{name}.jsonl"

    def keep(self, run: str, statement: bytes, signature: bytes) -> None:
        """Append a receipt. Not synced: the coordinator gives it again. A disk that is full loses it, and no more."""
        line = json.dumps({"statement": statement.decode(), "signature": signature.hex()})
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with self.path(run).open("a") as file:
                if file.tell() < MAX_BYTES:
                    file.write(line + "\n")
        except OSError as error:
            if not self._failed:
                log.warning("receipts cannot be kept", folder=str(self._folder), error=str(error))
            self._failed = True
