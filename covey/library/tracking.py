"""Telling a tracker the points of a run: as they come, or of a run that ended, from its record."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covey.client.connection import Connection
from covey.client.export import models_elsewhere
from covey.client.reading.names import RunName
from covey.client.values import Run
from covey.client.watch import OnLost
from covey.errors import NotFound, PluginError
from covey.library.tracked_points import Cursor, TrackedPoints
from covey.trackers.contract import TrackedRun, Tracker, tracker_at
from covey.trackers.folders import Point
from covey.ui.shapes import flattened

STEPS_EVERY_S = 5.0
"""How often a gossip run that is followed is read: its nodes state their steps every few seconds."""


@dataclass(frozen=True)
class Tracking:
    """What came of it: the run as it was read last, and how many points were told."""

    run: Run
    points: int


def track(
    connection: Connection,
    name: RunName,
    to: str,
    options: Mapping[str, Any] | None = None,
    *,
    follow: bool = False,
    nodes: bool = True,
    model: bool = False,
    on_lost: OnLost | None = None,
) -> Tracking:
    """Tell a tracker the points of a run that it was not told before.

    Args:
        connection: The federation.
        name: The run.
        to: The tracker and the place, `csv:DIR`; `covey plugins` lists trackers.
        options: The tracker's.
        follow: Go on until the run has ended; else what there is now is told.
        nodes: Whether each node's metrics are told too: a further call for each round.
        model: Whether the tracker gets the run's newest model, when the run has ended.
        on_lost: As of `Connection.watch`.

    Raises:
        CoveyError: There is no such tracker or run, an option is wrong, or it cannot be written there.
    """
    run = connection.run(name)
    tracker, where = tracker_at(to, options)
    if model:
        _require_model(run, tracker, to)
    told = TrackedRun(run.run, run.name, run.mode, run.submitted_at or 0.0, run.parent, flattened(run.spec))
    points = TrackedPoints(Cursor.read(tracker.open(where, told)))
    count, state = 0, ""
    try:
        for run in _readings(connection, run, points, follow, on_lost):  # noqa: B020
            news = list(_news(connection, run, points, nodes))
            for point in news:
                tracker.point(*point)
            if news:
                tracker.save(points.cursor.write())
            count += len(news)
        state = run.state if run.ended else ""
        if model and run.ended:
            _give_model(connection, run, tracker)
    finally:
        tracker.close(state)
    return Tracking(run, count)


def _readings(
    connection: Connection, run: Run, points: TrackedPoints, follow: bool, on_lost: OnLost | None
) -> Iterator[Run]:
    """The run as it is, each time that there may be something new; its rounds are among the points then."""
    changes = connection.watch(run, on_lost=on_lost) if follow and not run.ended else iter(())
    read_at = -STEPS_EVERY_S
    for change in changes:
        points.add(change.rounds)
        run = change.run
        if run.ended:
            break
        if run.is_coordinated or time.monotonic() - read_at >= STEPS_EVERY_S:
            if read_at < 0 and run.is_coordinated:
                points.add(connection.every_round(run))  # a watch begins with the newest ones
            read_at = time.monotonic()
            yield run
    run = connection.run(run)
    if run.is_coordinated:
        points.add(connection.every_round(run))
    yield run


def _news(connection: Connection, run: Run, points: TrackedPoints, nodes: bool) -> Iterator[Point]:
    if not run.is_coordinated:
        yield from points.of_steps(connection.gossip_steps(run))
        return
    for item in points.rounds(run.ended):
        yield from points.of_round(item, connection.round(run, item.round).updates if nodes else ())
    yield from points.of_versions(run.ended)


def _require_model(run: Run, tracker: Tracker, to: str) -> None:
    if not tracker.takes_models:
        raise PluginError(f"{to.partition(':')[0]} takes no models: leave the model away, and see covey run export")
    if not run.is_coordinated:
        raise NotFound(models_elsewhere(run.run))


def _give_model(connection: Connection, run: Run, tracker: Tracker) -> None:
    with tempfile.TemporaryDirectory(prefix="covey-model-") as folder:
        file = Path(folder) / f"{run.run}.safetensors"
        connection.export(run, file)
        tracker.model(file)
