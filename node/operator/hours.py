"""When a node may be given work: the hours and days of its operator. Pure: the time is told."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_STEP_S = 60.0


def zone_of(name: str) -> dt.tzinfo:
    """A time zone by its name (`Europe/Berlin`); empty: this machine's own.

    Raises:
        ValueError: There is none of that name here.
    """
    try:
        return ZoneInfo(name) if name else dt.datetime.now().astimezone().tzinfo or dt.UTC
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"no time zone {name!r} is known here: write one as in Europe/Berlin (where this machine has none of them, "
            "install tzdata)"
        ) from error


def span_of(text: str) -> tuple[int, int]:
    """`22:00-06:00` in minutes of the day.

    Raises:
        ValueError: It is not of that form, or has no length.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} are no hours: write them as in "22:00-06:00"')
    first, last = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if first == last:
        raise ValueError(f"{text!r} is no time at all, or all of it: leave hours out where there is no bound")
    return first, last


@dataclass(frozen=True)
class Hours:
    """Hours of some days, which may go past midnight: then the day is the one on which they begin.

    Attributes:
        span: As in `span_of`; empty: the whole day.
        zone: As in `zone_of`.
        days: On which they begin; empty: on all.
    """

    span: str = ""
    zone: str = ""
    days: Collection[Day] = ()

    @property
    def text(self) -> str:
        """For people: `22:00-06:00 Europe/Berlin, mon to fri`."""
        days = ", ".join(day for day in DAYS if day in self.days)
        where = self.zone or "local time"
        return " ".join(filter(None, [self.span, where, f"on {days}" if days else ""]))

    @property
    def are_bounded(self) -> bool:
        """Whether there is a time outside of them."""
        return bool(self.span) or bool(self.days)

    def include(self, at: float) -> bool:
        """Whether a moment, in Unix seconds, is within them."""
        if not self.are_bounded:
            return True
        local = dt.datetime.fromtimestamp(at, zone_of(self.zone))
        day, minute = local.weekday(), local.hour * 60 + local.minute
        if not self.span:
            return self._counts(day)
        first, last = span_of(self.span)
        if first < last:
            return first <= minute < last and self._counts(day)
        return (minute >= first and self._counts(day)) or (minute < last and self._counts((day - 1) % 7))

    def _counts(self, day: int) -> bool:
        return not self.days or DAYS[day] in self.days
