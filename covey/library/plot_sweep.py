"""A sweep as a picture: curves of its best trials, each with the interval of its seeds, and values over parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from covey.client.sweeps.results import SweepResults, TrialResult
from covey.errors import NotFound
from covey.library.plot import literal, new_figure, save

COLUMNS = 2


def draw_sweep(results: SweepResults, to: Path, best: int = 10) -> tuple[list[str], Any]:
    """Write a picture; what its panels show, and the figure.

    Args:
        results: Of the sweep.
        to: A .png, .svg or .pdf file.
        best: So many trials have a curve.

    Raises:
        SpecError: Another suffix.
        NotFound: No trial has a value yet, no such folder, or matplotlib is not installed.
    """
    figure = sweep_figure(results, best, to)
    save(figure, to)
    return ["curves", *results.keys], figure


def sweep_figure(results: SweepResults, best: int = 10, to: Path = Path("sweep.svg")) -> Any:
    """The `matplotlib` figure of it. Raises as `draw_sweep`."""
    measured = [trial for trial in results.trials if trial.value is not None]
    if not measured:
        raise NotFound(f"no trial of {results.name} has a value yet")
    figure, places = new_figure(to, 1 + len(results.keys))
    _curves(places[0], results, measured[:best])
    for axes, key in zip(places[1:], results.keys, strict=True):
        _values(axes, results, measured, key)
    return figure


def _curves(axes: Any, results: SweepResults, trials: list[TrialResult]) -> None:
    for trial in trials:
        xs, means = [at for at, _ in trial.curve], [mean for _, mean in trial.curve]
        ys = [mean.value for mean in means]
        (line,) = axes.plot(xs, ys, marker=".", label=f"{trial.trial}")
        halves = [mean.half or 0.0 for mean in means]
        if any(halves):
            low, high = ([y + sign * half for y, half in zip(ys, halves, strict=True)] for sign in (-1, 1))
            axes.fill_between(xs, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    axes.set(xlabel="versions" if results.unit == "updates" else results.unit, ylabel=literal(results.metric))
    axes.grid(alpha=0.3)
    axes.legend(title="trial", fontsize="small", ncols=COLUMNS)


def _values(axes: Any, results: SweepResults, trials: list[TrialResult], key: str) -> None:
    """A point a trial; hollow where it was given up before its end."""
    whole = [trial for trial in trials if trial.state == "completed"]
    for group, face in ((whole, None), ([trial for trial in trials if trial.state != "completed"], "none")):
        xs = [_place(trial.params[key]) for trial in group]
        halves = [trial.half or 0.0 for trial in group]
        axes.errorbar(xs, [trial.value for trial in group], yerr=halves, fmt="o", color="C0", mfc=face, elinewidth=0.8)
    if key in results.log_keys:
        axes.set_xscale("log")
    axes.set(xlabel=literal(key), ylabel=literal(results.metric))
    axes.grid(alpha=0.3)


def _place(value: bool | int | float | str) -> float | str:
    """Numbers lie where they are, all else by name."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else literal(str(value))
