"""What happened to a run, in order: its events, its rounds, and answers of nodes that did not count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from covey.client.values import Event, LogLine, Round, RoundDetail, Update

_COUNTED = ("accepted", "rejected", "declined", "lost", "late")


def log_of(events: Iterable[Event], rounds: Iterable[Round], detail_of: Callable[[int], RoundDetail]) -> list[LogLine]:
    """The lines, by their time.

    Args:
        events: Of the run.
        rounds: Those that are looked at.
        detail_of: A round's answers, asked for where some of them do not count.
    """
    lines = [LogLine(event.at, event.kind, node=event.node, text=detail_in_words(event.detail)) for event in events]
    for item in rounds:
        lines += _of_round(item)
        if item.rejected + item.declined + item.lost + item.late:
            lines += _of_answers(item, detail_of(item.round).updates)
    return sorted(lines, key=lambda line: line.at)


def detail_in_words(detail: Mapping[str, Any]) -> str:
    """What an event has to say; what is empty is left out."""
    words = ((key, _in_words(value)) for key, value in detail.items())
    return ", ".join(f"{key.replace('_', ' ')} {text}" for key, text in words if text)


def _in_words(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case Mapping():
            return f"({text})" if (text := detail_in_words(value)) else ""
        case list() | tuple():
            return ", ".join(filter(None, map(_in_words, value)))
    return str(value)


def _of_round(item: Round) -> Iterator[LogLine]:
    attempt = f", attempt {item.attempt}" if item.attempt > 1 else ""
    asked = f"round {item.round}{attempt}: {', '.join(item.invited)}"
    yield LogLine(item.started_at or 0.0, "opened", item.round, text=asked)
    if item.committed_at is not None:
        counts = ", ".join(f"{count} {name}" for name in _COUNTED if (count := getattr(item, name)))
        version = f", version {item.version}" if item.version else ""
        yield LogLine(item.committed_at, item.state, item.round, text=f"round {item.round}: {counts}{version}")


def _of_answers(item: Round, updates: Iterable[Update]) -> Iterator[LogLine]:
    for update in updates:
        if update.verdict not in ("accepted", "received", "held"):
            # The verdict of the rule comes with the commit; of others there is nothing but when they were recorded.
            at = update.received_at or item.committed_at or item.started_at or 0.0
            yield LogLine(at, update.verdict, item.round, update.node, f"round {item.round}: {update.reason}")
