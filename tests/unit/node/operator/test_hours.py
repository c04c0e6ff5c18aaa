"""When a node may be given work: hours past midnight, days, and clocks that are set."""

import datetime as dt

import pytest

from covey.node.operator.hours import Day, Hours, span_of, zone_of

BERLIN = "Europe/Berlin"
SATURDAY: tuple[Day, ...] = ("sat",)


def at(text, zone=BERLIN):
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone_of(zone)).timestamp()


NIGHT = Hours("22:00-06:00", BERLIN)
WEEK = Hours("22:00-06:00", BERLIN, ("mon", "fri"))


@pytest.mark.parametrize(
    ("hours", "moment", "is_in"),
    [
        (Hours(), "2026-11-30T12:00", True),
        (NIGHT, "2026-11-30T21:59:59", False),
        (NIGHT, "2026-11-30T22:00", True),
        (NIGHT, "2026-12-01T05:59:59", True),
        (NIGHT, "2026-12-01T06:00", False),
        (Hours("09:00-17:00", BERLIN), "2026-11-30T12:00", True),
        (Hours("09:00-17:00", BERLIN), "2026-11-30T17:00", False),
        (WEEK, "2026-11-30T23:00", True),  # a Monday
        (WEEK, "2026-12-01T03:00", True),  # which began on Monday
        (WEEK, "2026-12-01T23:00", False),
        (WEEK, "2026-11-30T03:00", False),  # which began on Sunday
        (Hours("", BERLIN, SATURDAY), "2026-12-05T12:00", True),
        (Hours("", BERLIN, SATURDAY), "2026-12-06T12:00", False),
        (NIGHT, "2026-03-29T03:30", True),  # the night in which an hour is left out
    ],
)
def test_a_moment_is_within_hours(hours, moment, is_in):
    assert hours.include(at(moment)) is is_in


def test_hours_are_those_of_their_zone():
    moment = at("2026-11-30T21:30", "UTC")
    assert NIGHT.include(moment)
    assert not Hours("22:00-06:00", "UTC").include(moment)
    assert NIGHT.text == "22:00-06:00 Europe/Berlin"
    assert WEEK.text == "22:00-06:00 Europe/Berlin on mon, fri"


@pytest.mark.parametrize("text", ["22-6", "24:00-06:00", "22:00-22:00", "22:00 - 06:00"])
def test_what_are_no_hours_is_refused(text):
    with pytest.raises(ValueError, match="hours"):
        span_of(text)
    with pytest.raises(ValueError, match="no time zone 'Mars/Olympus' is known here"):
        zone_of("Mars/Olympus")
