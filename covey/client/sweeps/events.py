"""What happens in a sweep, as its record has it: plain values, one a line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from covey.client.sweeps.specification import Params
from covey.errors import StoreError

Decision = Literal["on", "replaced", "pruned", "completed", "failed"]
"""Goes on; goes on with another one's model and values near that one's; is given up; is done; could not be measured."""


@dataclass(frozen=True)
class Asked:
    """A trial was given its values."""

    trial: int
    params: Params


@dataclass(frozen=True)
class Measured:
    """A run of a trial has come to a rung."""

    trial: int
    rung: int
    """From 0."""
    seed: int
    rounds: int
    """How many the trial has done with this seed, all rungs together; fewer than the rung's if [stop] ended the run."""
    value: float
    """Of the metric: the newest one until then."""
    curve: tuple[tuple[int, float], ...]
    """The metric's values since the rung before, by round."""
    run: str
    """The run's id."""


@dataclass(frozen=True)
class Failed:
    """A run of a trial has no value."""

    trial: int
    rung: int
    seed: int
    reason: str


@dataclass(frozen=True)
class Decided:
    """What becomes of a trial after a rung."""

    trial: int
    rung: int
    decision: Decision
    why: str
    value: float | None = None
    """The mean over its seeds; None: it has none."""
    source: int | None = None
    """`replaced`: the member whose model it goes on with."""
    params: Params | None = None
    """`replaced`: its values from now on."""


Event = Asked | Measured | Failed | Decided
NAMES: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in (Asked, Measured, Failed, Decided)}


def to_json(event: Event) -> dict[str, Any]:
    """An event as a JSON object."""
    return {"event": type(event).__name__.lower(), **asdict(event)}


def from_json(data: dict[str, Any]) -> Event:
    """The event of a JSON object.

    Raises:
        StoreError: It is none.
    """
    fields = dict(data)
    try:
        kind = NAMES[fields.pop("event")]
        if kind is Measured:
            fields["curve"] = tuple((int(at), float(value)) for at, value in fields["curve"])
        event: Event = kind(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"a line of the sweep's record is none that this version of Covey writes: {data}") from error
    return event
