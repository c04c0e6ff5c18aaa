"""`covey run`: submit a run, follow it, stop it, and take its model away."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.commands.figures.statistics import statistics
from covey.cli.commands.logs.run_logs import logs
from covey.cli.commands.models.evaluate import evaluate, evaluation
from covey.cli.commands.run_checks import audit, bundle, debug, print_checked, replay
from covey.cli.commands.run_plot import plot
from covey.cli.commands.run_steps import steps
from covey.cli.commands.run_track import track
from covey.cli.framework.command import Failure, Group, print_json
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import (
    CHECKED_FIELDS,
    CONTRIBUTION_FIELDS,
    GOSSIP_MASS_FIELDS,
    GOSSIP_PART_FIELDS,
    PROGRESS_FIELDS,
    ROUND_FIELDS,
    RUN_DETAIL_FIELDS,
    RUN_FIELDS,
    VERSION_FIELDS,
    plain,
    plain_list,
)
from covey.cli.framework.options import (
    EXISTING_FILE,
    FILE,
    VersionName,
    json_option,
    no_color_option,
    target_options,
    watch_options,
)
from covey.cli.framework.pages import DEFAULT_PAGE, note_more, page_options
from covey.cli.framework.records import Form, list_options, print_records

if TYPE_CHECKING:
    from covey.client.connection import Connection
    from covey.client.target import Target
    from covey.client.values import Run

SUBMITTED_FIELDS = (
    *RUN_DETAIL_FIELDS,
    "privacy (what it will have spent at its end: epsilon, delta, unit, rounds, is_secret; null: no account)",
)
WATCH_FIELDS = (
    "(one object a line, for each change)",
    f"run ({', '.join(RUN_FIELDS)})",
    f"rounds (those that changed: {', '.join(ROUND_FIELDS)})",
    f"nodes (of more than 100, those that began something else last: {', '.join(PROGRESS_FIELDS)})",
    "nodes_count",
)
DELETED_FIELDS = ("run", "files", "bytes")


@click.group(cls=Group, examples=("covey run submit digits.toml --watch", "covey run show digits --json"))
def run() -> None:
    """Submit runs and look at them.

    RUN is a run's id, or its name: the newest run of that name. A run of a study is STUDY/NAME; NAME will do where it
    is clear.
    """


@run.command(
    examples=(
        "covey run submit digits.toml --data-dir /srv/covey",
        "covey run submit digits.toml --server host:7400 --identity ~/alice --watch",
        "RUN=$(covey run submit digits.toml)",
        "covey run submit digits.toml --dry-run",
    ),
    json_fields=(*SUBMITTED_FIELDS, f"with --dry-run: {', '.join(CHECKED_FIELDS)}"),
)
@click.argument("spec", metavar="SPEC.toml", type=EXISTING_FILE)
@click.option("--dry-run", is_flag=True, help="Submit nothing: check it whole, and show which nodes could take it.")
@watch_options
@json_option
@target_options
def submit(spec: Path, dry_run: bool, watching: bool, no_color: bool, as_json: bool, target: Target) -> None:
    """Check the specification SPEC.toml, queue the run, and print its id.

    With --dry-run the coordinator checks it in the same way, and nothing is queued: what it would be refused for
    (exit code 1), what one should know, what it would wait for, and why a node would not take part, as far as is known.
    """
    if dry_run and watching:
        raise click.UsageError("--dry-run queues no run that could be watched; leave --watch out")
    with connected(target) as connection:
        if dry_run:
            print_checked(connection.check(spec), as_json)
            return
        submitted = connection.submit(spec)
        _note_what_travels(connection, submitted)
        if not (as_json and watching):
            _print_submitted(connection, submitted, as_json)
        if watching:
            _follow(connection, submitted.run, as_json, no_color=no_color)


def _note_what_travels(connection: Connection, submitted: Run) -> None:
    """Of a run that shares a part of the model only, say on standard error what travels and how many bytes that is."""
    exchange = submitted.spec.get("exchange", {})
    if exchange.get("share") == ["*"] and not exchange.get("local") and not exchange.get("frozen"):
        return
    if travels := _what_travels(connection, submitted.run):
        click.echo(f"exchange: {travels}", err=True)


def _what_travels(connection: Connection, run: str) -> str:
    """Which tensors of a run's model are shared, local and frozen, in words; empty: all are shared."""
    return str(_noted_at_submission(connection, run, "exchange") or "")


def _noted_at_submission(connection: Connection, run: str, key: str) -> Any:
    """What the coordinator noted of a run when it was submitted; None: nothing under this key."""
    details = (event.detail for event in connection.events(run=run, limit=None) if event.kind == "run-submitted")
    return next((detail[key] for detail in details if key in detail), None)


def _print_submitted(connection: Connection, submitted: Run, as_json: bool) -> None:
    if as_json:
        beside = {"privacy": _noted_at_submission(connection, submitted.run, "privacy")}
        print_json(plain(submitted, RUN_DETAIL_FIELDS) | beside)
    else:
        click.echo(submitted.run)
    if submitted.reason:
        click.echo(submitted.reason, err=True)


@run.command(
    "continue",
    examples=(
        "covey run continue digits --rounds 20 --data-dir /srv/covey",
        "covey run continue digits --rounds 20 --version best --watch",
        "covey run continue digits --spec changed.toml",
    ),
    json_fields=SUBMITTED_FIELDS,
)
@click.argument("run")
@click.option("--rounds", type=click.IntRange(1), help="How many more (updates of an asynchronous run).")
@click.option("--spec", type=EXISTING_FILE, help="A changed specification [default: RUN's own].")
@click.option("--version", type=VersionName(), default="newest", show_default=True, help="Of RUN's model.")
@watch_options
@json_option
@target_options
def continue_run(
    run: str,
    rounds: int | None,
    spec: Path | None,
    version: Any,
    watching: bool,
    no_color: bool,
    as_json: bool,
    target: Target,
) -> None:
    """Queue a new run that begins with the model of RUN, and print its id.

    The model is carried over, and nothing else. The new run names RUN and the version as its parent.
    """
    from covey.client.models.continuing import continuation

    if rounds is None and spec is None:
        raise click.UsageError("say how many rounds more (--rounds N), or how the run changes (--spec SPEC.toml)")
    with connected(target) as connection:
        submitted = connection.submit(continuation(connection.run(run), rounds, spec, version=version))
        if not (as_json and watching):
            _print_submitted(connection, submitted, as_json)
        if watching:
            _follow(connection, submitted.run, as_json, no_color=no_color)


@run.command(
    "list",
    examples=("covey run list --data-dir /srv/covey", "covey run list --json --limit 10", "covey run list --all"),
    json_fields=("(a list)", *RUN_FIELDS),
)
@click.option("--before", default="", metavar="RUN", help="Only runs that were submitted before this one (its id).")
@page_options("runs")
@list_options
@target_options
def list_runs(before: str, limit: int | None, whole: bool, form: Form, target: Target) -> None:
    """List runs, the newest first. Also works while the coordinator is stopped."""
    with connected(target) as connection:
        size = limit or DEFAULT_PAGE
        runs = list(connection.every_run(before=before)) if whole else connection.runs(size + 1, before=before)
    more = not whole and len(runs) > size
    runs = runs[:size] if more else runs
    if form:
        print_records(plain_list(runs, RUN_FIELDS), form)
    else:
        from covey.cli.views import tables

        tables.show(tables.run_table(runs))
    if more:
        note_more(
            "the newest run is shown" if len(runs) == 1 else f"the newest {len(runs)} runs are shown",
            f"--before {runs[-1].run}",
        )


@run.command(
    examples=("covey run show digits --data-dir /srv/covey", "covey run show digits --json"),
    json_fields=(
        *RUN_DETAIL_FIELDS,
        f"contributions (a list of: {', '.join(CONTRIBUTION_FIELDS)})",
        "code (the digest of the task's code, by node of the newest round)",
        "notices (what went wrong though the run went on; a list of: at, kind, node, round, reason)",
        f"gossip (of a gossip run: what each node stated; a list of: {', '.join(GOSSIP_PART_FIELDS)})",
        f"mass (of a gossip run: exact, {', '.join(GOSSIP_MASS_FIELDS)})",
        "statistics (of a completed run of method statistics: as covey run statistics)",
    ),
)
@click.argument("run")
@click.option("--after", default="", metavar="NODE", help="Only nodes that come after this one in the roster.")
@page_options("nodes")
@json_option
@target_options
def show(run: str, after: str, limit: int | None, whole: bool, as_json: bool, target: Target) -> None:
    """Show RUN: its state, what it waits for, its newest model, and what each node contributed.

    It ends with a warning for each node that contributed to less than it was asked for, for each update that was lost
    on the coordinator, and for each node that had lost what it kept of the run. Also works while the coordinator is
    stopped.
    """
    from covey.cli.commands.figures.tables import figures_tables
    from covey.cli.views.contributions import NEWEST_EVENTS, notice_lines, notices, shortfalls
    from covey.client.reading.figures import has_figures, read_figures

    size = None if whole else limit or DEFAULT_PAGE
    with connected(target) as connection:
        shown = connection.run(run)
        page = list(islice(connection.every_contribution(shown, after=after), size))
        happened = notices(connection.events(run=shown, limit=NEWEST_EVENTS))
        warnings = [] if as_json else shortfalls(shown, connection.every_contribution(shown)) + notice_lines(happened)
        view = None if shown.is_coordinated else connection.gossip(shown)
        code = connection.code_of(shown, {contribution.node for contribution in page})
        figures = read_figures(connection, shown) if has_figures(shown) and shown.state == "completed" else None
    if as_json:
        beside = {"contributions": plain_list(page, CONTRIBUTION_FIELDS), "code": code, "notices": happened}
        if view is not None:
            beside["gossip"] = plain_list(view.parts, GOSSIP_PART_FIELDS)
            beside["mass"] = {"exact": view.mass.is_exact} | plain(view.mass, GOSSIP_MASS_FIELDS)
        if figures is not None:
            beside["statistics"] = list(figures.records())
        print_json(plain(shown, RUN_DETAIL_FIELDS) | beside)
    else:
        from covey.cli.views import gossip_tables, tables

        parts = [] if view is None else gossip_tables.parts(view, is_ended=shown.ended)
        parts += [] if figures is None else figures_tables(figures)
        tables.show(*tables.run_views(shown, page if view is None else [], warnings), *parts)
    if page and len(page) == size and shown.roster_size > len(page):
        note_more(f"{len(page)} of {shown.roster_size} nodes are shown", f"--after {page[-1].node}")


@run.command(
    examples=("covey run watch digits --data-dir /srv/covey", "covey run watch digits --json | jq .run.state"),
    json_fields=WATCH_FIELDS,
)
@click.argument("run")
@no_color_option
@json_option
@target_options
def watch(run: str, no_color: bool, as_json: bool, target: Target) -> None:
    """Follow RUN to its end; exit code 1 if it fails.

    On a terminal this is a screen that fits 80 columns: curves, what each node does and how fast, the answers of the
    open round and each node's last ones, what privacy is spent, how near the rules of [stop] are, and why it waits.
    Else it is a line for each change.
    """
    with connected(target) as connection:
        _follow(connection, run, as_json, no_color=no_color)


def _follow(connection: Connection, run: str, as_json: bool, *, no_color: bool = False) -> None:
    from covey.cli.views.contributions import NEWEST_EVENTS, notice_lines, notices, shortfalls
    from covey.cli.views.run_views import show_to_end, view_for

    ended = show_to_end(connection, run, view_for(connection, as_json=as_json, no_color=no_color))
    happened = notices(connection.events(run=ended, limit=NEWEST_EVENTS))
    for line in [*shortfalls(ended, connection.contributions(ended)), *notice_lines(happened)]:
        click.echo(line, err=as_json)  # JSON has it in the rounds
    if ended.state != "completed":
        raise Failure(f"run {ended.run} is {ended.state}: {ended.reason or 'no reason was given'}")


@run.command(examples=("covey run stop digits --data-dir /srv/covey",), json_fields=RUN_DETAIL_FIELDS)
@click.argument("run")
@json_option
@target_options
def stop(run: str, as_json: bool, target: Target) -> None:
    """Stop RUN; its committed versions stay."""
    with connected(target) as connection:
        stopped = connection.stop(run)
    if as_json:
        print_json(plain(stopped, RUN_DETAIL_FIELDS))
    else:
        stopping = "" if stopped.state == "stopped" else "; it stops as soon as it can"
        click.echo(f"run {stopped.run} is {stopped.state}{stopping}")


@run.command(
    examples=("covey run delete digits --data-dir /srv/covey", "covey run delete 3f9a01c2d4e5 --yes --json"),
    json_fields=DELETED_FIELDS,
)
@click.argument("run")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@target_options
def delete(run: str, yes: bool, as_json: bool, target: Target) -> None:
    """Delete RUN, which has ended, for ever: its record, models, updates and event log.

    What it was asked for and that it was deleted stay among the coordinator's events.
    """
    with connected(target) as connection:
        shown = connection.run(run)
        what = f"run {shown.run} ({shown.name}, {shown.state}, {shown.done} of {shown.whole} {shown.unit})"
        if shown.ended and not yes:
            click.confirm(f"delete {what} with its models and updates, for ever?", abort=True, err=True)
        deleted = connection.delete(shown)
    if as_json:
        print_json(plain(deleted, DELETED_FIELDS))
    else:
        click.echo(f"{what} is deleted: {deleted.files} files, {deleted.bytes} bytes")


@run.command(
    examples=(
        "covey run export digits --to model.safetensors --data-dir /srv/covey",
        "covey run export digits --to best.safetensors --version best",
        "covey run export digits --to best.safetensors --best loss",
        "python -c \"import safetensors.torch as s; print(s.load_file('model.safetensors').keys())\"",
    ),
    json_fields=(
        "file",
        "exchange (what is shared, and so in it, local and frozen; empty: all is shared)",
        *VERSION_FIELDS,
    ),
)
@click.argument("run")
@click.option("--to", "path", required=True, type=FILE, help="The file to write; replaced only when all is there.")
@click.option(
    "--version", type=VersionName(), default="newest", show_default=True, help="A version's number, `newest` or `best`."
)
@click.option("--best", default="", metavar="METRIC", help="The version with the best value of this metric.")
@click.option(
    "--lowest", is_flag=True, help="With --best: the least value is the best [default: by the metric's name]."
)
@click.option("--node", default="", help="In a run without a global model: the node whose own model is written.")
@json_option
@target_options
def export(
    run: str, path: Path, version: Any, best: str, lowest: bool, node: str, as_json: bool, target: Target
) -> None:
    """Write a model of RUN as a safetensors file, which plain PyTorch loads.

    In a run without a global model, write what a node sent of its own, as raw values. Tensors that stay on the
    nodes or are frozen are in no file; which these are is said on standard error.

    Also works while the coordinator is stopped.
    """
    from covey.cli.views.export_bar import export_bar
    from covey.client.models.best import best_version

    if best and version != "newest":
        raise click.UsageError("--best chooses the version, and so does --version: give one of the two")
    if lowest and not best:
        raise click.UsageError("--lowest says how to choose with --best METRIC; give that as well")
    which = ""
    with connected(target) as connection, export_bar() as show:
        if best:
            chosen, value = best_version(connection, run, best, lowest=lowest)
            version, which = chosen.version, f", the best by {best} ({value:.6g})"
        written = connection.export(run, path, version=version, node=node, on_progress=show)
        travels = _what_travels(connection, run)
    if as_json:
        print_json({"file": str(path), "exchange": travels, **plain(written, VERSION_FIELDS)})
    else:
        click.echo(f"version {written.version}{which}, {written.bytes} bytes, written to {path}")
    if travels:
        click.echo(f"only what is shared is in the file; {travels}", err=True)


for command in (evaluate, evaluation, audit, bundle, replay, debug, logs, plot, statistics, steps, track):
    run.add_command(command)
