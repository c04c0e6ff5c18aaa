"""How soon the page of `covey ui` shows a long run: 1,000 rounds, and 100,000 asynchronous updates.

    python -m benchmarks.measuring.page
    python -m benchmarks.measuring.page --updates 5000

In a real Chromium, by its own clock, from the start of the navigation: to the first paint, to the first row of
rounds, and until all curves are whole (they are read while the page is used). On a coordinator that is not running,
unless `--live`: then a coordinator runs over the record. Each number is the median of several loads.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measuring.large_record import ASYNC, SYNC, Size, fill_store
from covey.coordinator.config import sqlite_url
from covey.testing.federation import Federation
from covey.testing.ui.browser import enter, looking, served

LOADS = 5
WAIT_MS = 600_000
PAINT = "performance.getEntriesByType('paint').find(entry => entry.name === 'first-contentful-paint').startTime"
ROWS = "() => document.querySelector('[aria-label^=\"rounds from\"] tbody tr') && performance.now()"
WHOLE = (
    "() => document.querySelector('section .note')?.textContent === '' && document.querySelector('canvas')"
    " && performance.now()"
)


def load(address: str, run: str) -> tuple[float, float, float]:
    """Milliseconds to the first paint, the first rows, and whole curves, of a browser that has seen nothing yet."""
    with looking() as looked:
        page = looked.page
        enter(page, address)
        page.goto("about:blank")
        page.goto(f"{address.partition('?')[0]}#/run/{run}")
        rows = page.wait_for_function(ROWS, timeout=WAIT_MS, polling=10).json_value()
        paint = page.evaluate(PAINT)
        whole = page.wait_for_function(WHOLE, timeout=WAIT_MS, polling=50).json_value()
        return float(paint), float(rows), float(whole)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1 if the first rows take a second or longer."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measuring.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--live", action="store_true", help="with a coordinator that runs")
    given = parser.parse_args(arguments)
    late = False
    with tempfile.TemporaryDirectory(prefix="covey-page-") as name, ExitStack() as stack:
        federation = stack.enter_context(Federation(Path(name), nodes=0))
        federation.start_coordinator()  # which makes its keys, and an empty record
        federation.stop_coordinator()
        folder = federation.coordinator_dir
        fill_store(sqlite_url(folder), Size(given.updates, given.rounds, runs=20, events=500))
        if given.live:
            federation.start_coordinator()
        for run, what in ((SYNC, f"{given.rounds:,} rounds"), (ASYNC, f"{given.updates:,} updates")):
            loads = []
            for _ in range(LOADS):
                with served("--data-dir", folder) as address:  # one that has read nothing yet
                    loads.append(load(address, run))
            paint, rows, whole = (statistics.median(column) for column in zip(*loads, strict=True))
            print(f"{what}: first paint {paint:.0f} ms, first rows {rows:.0f} ms, whole curves {whole:.0f} ms")
            late |= rows >= 1000
    return int(late)


if __name__ == "__main__":
    sys.exit(main())
