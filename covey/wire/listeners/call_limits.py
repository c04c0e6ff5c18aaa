"""How many calls may be under way, and begin: of one caller, and of one kind of callers. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from covey.errors import LimitExceeded
from covey.wire.listeners.buckets import Buckets


@dataclass(frozen=True)
class Allowance:
    """What one kind of callers may have.

    Attributes:
        each: Calls of one caller at once.
        total: Calls of all callers of this kind at once. Each kind has room of its own: none takes that of another.
        begin: How many calls one caller may begin at once, and how many a second after that.
    """

    each: int
    total: int
    begin: tuple[float, float] = (500, 100.0)


@dataclass(frozen=True)
class Caller:
    """Whose calls are counted together: a name or an address, among callers of one kind."""

    kind: str
    name: str


class CallLimits:
    """Counts calls. One that has not said anything yet gives way to a newer one, the oldest first.

    So whoever only holds calls open keeps nobody else out, from the same address neither.

    Args:
        allowances: By kind of caller.
    """

    def __init__(self, allowances: Mapping[str, Allowance]) -> None:
        self._allowances = allowances
        self._calls: dict[int, Caller] = {}
        self._silent: dict[int, Caller] = {}
        """Those of them whose first message has not come, the oldest first."""
        self._of: dict[Caller, int] = {}
        self._total = dict.fromkeys(allowances, 0)
        self._begun = {kind: Buckets(*allowance.begin) for kind, allowance in allowances.items()}

    def enter(self, call: int, caller: Caller, now: float) -> int | None:
        """A call begins.

        Args:
            call: A name for it, used once.
            caller: Who makes it.
            now: Seconds of a clock that does not go back.

        Returns:
            The call that has to end for it, if one has; it counts as ended.

        Raises:
            LimitExceeded: There are too many; it counts as not begun.
        """
        allowance = self._allowances[caller.kind]
        if not self._begun[caller.kind].take(caller.name, now):
            raise LimitExceeded("too many calls a second; come back more slowly")
        silent = None
        if self._of.get(caller, 0) >= allowance.each:
            silent = next((other for other, whose in self._silent.items() if whose == caller), None)
            if silent is None:
                raise LimitExceeded(f"{allowance.each} calls are under way already: end one of them first")
        elif self._total[caller.kind] >= allowance.total:
            silent = next((other for other, whose in self._silent.items() if whose.kind == caller.kind), None)
            if silent is None:
                raise LimitExceeded("too many calls are under way; try again in a minute")
        if silent is not None:
            self.leave(silent)
        self._calls[call] = self._silent[call] = caller
        self._of[caller] = self._of.get(caller, 0) + 1
        self._total[caller.kind] += 1
        return silent

    def spoke(self, call: int) -> None:
        """The first message of a call has come."""
        self._silent.pop(call, None)

    def leave(self, call: int) -> None:
        """A call has ended; once more does no harm."""
        caller = self._calls.pop(call, None)
        if caller is None:
            return
        self._silent.pop(call, None)
        self._total[caller.kind] -= 1
        self._of[caller] -= 1
        if not self._of[caller]:
            del self._of[caller]

    def under_way(self, caller: Caller) -> int:
        """How many calls of a caller there are now."""
        return self._of.get(caller, 0)
