"""States, amounts and numbers for people."""

from __future__ import annotations

from rich.text import Text

from covey.cli.views.listing import safe_text

LEAST_SHOWN = 5e-5
"""Smaller numbers would be 0.0000."""
STYLES = {
    "completed": "green",
    "committed": "green",
    "accepted": "green",
    "connected": "green",
    "running": "cyan",
    "collecting": "cyan",
    "aggregating": "cyan",
    "held": "cyan",
    "failed": "red",
    "rejected": "red",
    "evicted": "red",
    "lost": "yellow",
    "late": "yellow",
    "interrupted": "yellow",
    "declined": "yellow",
    "stopped": "yellow",
    "away": "yellow",
    "left": "yellow",
}


def state_text(state: str) -> Text:
    """A state or verdict in its colour."""
    return Text(safe_text(state).plain, style=STYLES.get(state, ""))


def adversary_text(attack: str) -> Text:
    """The attack of a drill node, to be seen."""
    return Text(safe_text(attack).plain, style="bold red")


def amount(count: int) -> str:
    """A number of bytes."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def span(seconds: float) -> str:
    """A time span."""
    if seconds < 120:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def number(value: object) -> str:
    """A metric."""
    if not isinstance(value, int | float):
        return ""
    return f"{value:.4f}" if not 0 < abs(value) < LEAST_SHOWN else f"{value:.3g}"
