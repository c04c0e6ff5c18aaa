"""What happened, a line each, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text

from covey.cli.views.listing import safe_text
from covey.cli.views.times import when
from covey.client.reading.site_log import SiteLine
from covey.client.values import Event, LogLine


def event_lines(events: Iterable[Event]) -> Text:
    """One line an event."""
    return Text("\n").join(_event(item) for item in events)


def log_lines(lines: Iterable[LogLine]) -> Text:
    """One line for each thing that happened to a run."""
    return Text("\n").join(
        safe_text("  ".join(filter(None, [when(line.at), line.what, line.node, line.text]))) for line in lines
    )


def site_lines(lines: Iterable[SiteLine]) -> Text:
    """One line for each line of a node's log; those of a traceback as they are."""
    return Text("\n").join(
        safe_text(
            f"    {line.text}"
            if line.kind == "traceback"
            else "  ".join(
                filter(None, [when(line.at), f"round {line.round}" if line.round else "", line.kind, line.text])
            )
        )
        for line in lines
    )


def _event(item: Event) -> Text:
    of = "  ".join(filter(None, [when(item.at), item.kind, item.node, item.run and f"run {item.run}"]))
    detail = _detail(item.detail)
    return safe_text(f"{of}  {detail}" if detail else of)


def _detail(detail: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in detail.items())
