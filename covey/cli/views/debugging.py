"""`covey run debug`: an event log, replayed and printed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from covey.client.event_log import MachineState, debug_log
from covey.machines.log import Opening, Replayed


def print_log(path: Path, echo: Callable[[str], None]) -> int:
    """Print every event of a log with its actions, and the machine's state at the end; how many differences there are.

    Raises:
        NotFound: There is no such file.
        StoreError: It is no event log.
    """
    differences, state = 0, None
    for item in debug_log(path):
        match item:
            case Opening():
                echo(f"{_time(item.at)} -- {item.name}, mode {item.kind!r}, begins here")
            case Replayed():
                differences += bool(item.difference)
                _print_event(item, echo)
            case MachineState():
                state = item
    if state is not None:
        echo(state.text())
    return differences


def _print_event(item: Replayed, echo: Callable[[str], None]) -> None:
    echo(f"{_time(item.entry.at)} {item.event}")
    for action in item.actions:
        echo(f"    {action}")
    if item.difference:
        echo(f"    DIFFERS: {item.difference}")


def _time(at: float) -> str:
    """Unix seconds as a time of day, in UTC, with milliseconds."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1000):03}"
