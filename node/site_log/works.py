"""What a worker works for, and what it prints, line by line. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MOST_LINES = 1000
"""Of what is printed at once; of more the last."""
LINE_BYTES = 4000
"""Of a line that has not ended; the rest is left out."""


@dataclass
class Work:
    """One worker's: the run, the round, and the line that it has not ended."""

    run: str
    round: int
    unfinished: bytes = b""

    def lines(self, data: bytes) -> list[str]:
        """The lines that have ended with this."""
        *lines, rest = (self.unfinished + data).split(b"\n")
        self.unfinished = rest[:LINE_BYTES]
        return [text for raw in lines[-MOST_LINES:] if (text := raw.decode(errors="replace").rstrip())]
