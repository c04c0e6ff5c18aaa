"""What can go wrong on the way to a federation; the rest of the errors is in `covey.errors`."""

from __future__ import annotations

from covey.errors import CoveyError


class Unreachable(CoveyError):
    """The coordinator does not answer now; trying again later may succeed."""

    code = "unreachable"


class DaemonFailed(CoveyError):
    """A daemon that was started here ended by itself; the message holds the end of its log."""

    code = "daemon-failed"
