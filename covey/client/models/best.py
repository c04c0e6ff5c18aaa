"""The best version of a run by any metric that it has, the last one included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from covey.client.reading.names import RunName
from covey.client.values import Round, Version
from covey.errors import NotFound
from covey.storage.record.versions import rated

LESS_IS_BETTER = re.compile(r"(^|[^a-z])(loss|error|err|perplexity|mse|mae|rmse|nll|brier|ece|eer|wer|cer)([^a-z]|$)")
"""In the names of metrics of which less is better; of all others more is."""
MOST_TRIED = 100
"""Versions that are looked at to find one that is kept."""


class Runs(Protocol):
    """Where runs are read: `covey.client.connection.Connection`."""

    def every_round(self, run: RunName) -> Iterator[Round]:
        """A run's rounds in order."""

    def version(self, run: RunName, version: int) -> Version:
        """A version by its number."""


def less_is_better(metric: str) -> bool:
    """Whether a metric's name says that its least value is the best one."""
    return LESS_IS_BETTER.search(metric.lower()) is not None


def best_version(runs: Runs, run: RunName, metric: str, *, lowest: bool = False) -> tuple[Version, float]:
    """The version with the best value of a metric, of equals the newest; and the value.

    The coordinator's own evaluation counts; where no version has the metric so, that of the nodes.

    Args:
        runs: Where the run is.
        run: The run.
        metric: Its name, as in `covey run show`.
        lowest: The least value is the best one, whatever the metric's name says.

    Raises:
        NotFound: No version was evaluated by it (the message lists the metrics), or the best one's file is not kept
            (the message names the best one that is).
    """
    measured = {item.version: item.metrics for item in runs.every_round(run) if item.version}
    order = rated(measured, metric, "min" if lowest or less_is_better(metric) else "max")
    if not order:
        listed = ", ".join(sorted({name for metrics in measured.values() for name in metrics})) or "none"
        raise NotFound(f"no version was evaluated by {metric!r}; the run's metrics are: {listed}")
    best, value = runs.version(run, order[0][0]), order[0][1]
    if best.kept:
        return best, value
    others = (runs.version(run, version) for version, _ in order[1:MOST_TRIED])
    other = next((version for version in others if version.kept), None)
    kept = "none that was evaluated by it is" if other is None else f"the best one that is kept is {other.version}"
    raise NotFound(
        f"version {best.version} is the best by {metric} ({value:g}), and its file is not kept any more; {kept}. "
        f'[evaluation] metric = "{metric}" (and goal) keeps the best one'
    )
