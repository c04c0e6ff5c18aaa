"""Rounds of a run that are read page by page."""

from __future__ import annotations

import time

from covey.client.values import Round


def rounds(first, last, **values):
    return [
        Round(
            n, "committed", committed_at=100.0 + n, bytes_received=10, bytes_sent=5, metrics={"loss": 1.0 / n}, **values
        )
        for n in range(first, last + 1)
    ]


class Record:
    """Rounds that are read; notes which pages."""

    def __init__(self, last):
        self.rounds, self.asked = rounds(1, last), []

    def read(self, after, limit, newest):
        later = [item for item in self.rounds if item.round > after]
        if newest:
            return later[-limit:]
        self.asked.append(after)
        return later[:limit]


def read_on(history, record, *, ended=False, seconds=60.0):
    history.read_on(record.read, ended=ended, until=time.monotonic() + seconds)
