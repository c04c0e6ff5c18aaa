"""What people see of a sweep: a line for each decision, and the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from covey.cli.views.listing import Column, listing, safe_text
from covey.cli.views.words import number
from covey.client.sweeps.events import Asked, Decided, Event, Failed
from covey.client.sweeps.results import SweepResults, TrialResult
from covey.client.sweeps.specification import Params
from covey.client.sweeps.sweep import Sweep

WORDS = {
    "on": "goes on",
    "replaced": "is replaced",
    "pruned": "is given up",
    "completed": "is done",
    "failed": "failed",
}


def lines(sweep: Sweep) -> Callable[[Event], None]:
    """Prints what is decided, on standard error."""
    whole = sweep.machine().plan.trials

    def line(event: Event) -> None:
        if isinstance(event, Asked):
            click.echo(f"trial {event.trial} of {whole}: {params_line(event.params)}", err=True)
        elif isinstance(event, Decided):
            value = "" if event.value is None else f", {sweep.metric} {number(event.value)}"
            after = "" if event.params is None else f": {params_line(event.params)}"
            text = f"trial {event.trial} {WORDS[event.decision]}{value} ({event.why}){after}"
            click.echo(safe_text(text).plain, err=True)
        elif isinstance(event, Failed):
            click.echo(safe_text(f"trial {event.trial}, seed {event.seed}: {event.reason}").plain, err=True)

    return line


def summary(results: SweepResults) -> list[Any]:
    """A table, the best trial first, and how much was run."""
    columns = [Column("TRIAL", right=True), Column("STATE"), Column(results.unit.upper(), right=True)]
    columns += [Column(results.metric.upper(), right=True)]
    columns += [Column(key.rpartition(".")[2].upper(), right=True, below="narrow") for key in results.keys]
    columns.append(Column("WHY", below="always"))
    done = len(results.trials)
    best = "highest" if results.highest else "lowest"
    seeds = f" with {len(results.seeds)} seeds each; ± is half of the 95 % interval" if len(results.seeds) > 1 else ""
    ran = f"{results.rounds_run} {results.unit} in all"
    text = f"{done} of {results.planned} trials{seeds}; {ran}; the {best} value is the best"
    return [listing(columns, [_row(results, trial) for trial in results.trials]), safe_text(text)]


def params_line(params: Params) -> str:
    """Values by key, on one line."""
    return ", ".join(f"{key} {_shown(value)}" for key, value in params.items())


def _row(results: SweepResults, trial: TrialResult) -> list[Any]:
    half = "" if trial.half is None else f" ± {number(trial.half)}"
    value = "" if trial.value is None else f"{number(trial.value)}{half}"
    why = safe_text(trial.why) if trial.state == "failed" else ""
    rounds = str(trial.rounds or "")
    return [str(trial.trial), trial.state, rounds, value, *(_shown(trial.params[key]) for key in results.keys), why]


def _shown(value: bool | int | float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else safe_text(str(value)).plain
