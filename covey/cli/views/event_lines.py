"""What happened, a line each, for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.text import Text

from covey.cli.views.listing import safe_text
from covey.cli.views.times import when
from covey.client.reading.run_log import detail_in_words
from covey.client.reading.site_log import SiteLine
from covey.client.values import Event, LogLine

if TYPE_CHECKING:
    from covey.node.site_log.reading import LocalLine


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


def local_lines(lines: Iterable[LocalLine], *, is_about_one: bool) -> Text:
    """One line for each line of a node's own log; those of a traceback as they are.

    Args:
        lines: The lines.
        is_about_one: Whether all are about one run, which need not be said then.
    """
    return Text("\n").join(safe_text(_local(line, "" if is_about_one else line.run)) for line in lines)


def _local(line: LocalLine, run: str) -> str:
    if line.kind == "traceback":
        return f"    {line.text}"
    level = line.level if line.level in ("warning", "error") and line.kind == "node" else ""
    of = f"run {run}" if run else "", f"round {line.round}" if line.round else "", line.kind, level, line.text
    return "  ".join(filter(None, [when(line.at), *of]))


def _event(item: Event) -> Text:
    of = "  ".join(filter(None, [when(item.at), item.kind, item.node, item.run and f"run {item.run}"]))
    detail = detail_in_words(item.detail)
    return safe_text(f"{of}  {detail}" if detail else of)
