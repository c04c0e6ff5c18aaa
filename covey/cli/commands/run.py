"""`covey run`: submit a run, follow it, stop it, take its model away, and audit it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Failure, Group, print_json
from covey.cli.framework.fields import (
    PROGRESS_FIELDS,
    ROUND_FIELDS,
    RUN_DETAIL_FIELDS,
    RUN_FIELDS,
    VERSION_FIELDS,
    plain,
    plain_list,
    plain_version,
)
from covey.cli.framework.options import EXISTING_FILE, FILE, FOLDER, json_option, target_options

if TYPE_CHECKING:
    from covey.cli.framework.options import Target
    from covey.protos import admin_pb2 as pb

SUBMIT_DEADLINE_S = 60.0
"""The coordinator's worker may still be starting: it checks what the specification names."""
STOP_DEADLINE_S = 20.0
"""The coordinator answers when the run has ended, after ten seconds at the latest."""
WATCH_FIELDS = (
    "(one object a line, for each change)",
    f"run ({', '.join(RUN_FIELDS)})",
    f"rounds (those that changed: {', '.join(ROUND_FIELDS)})",
    f"nodes ({', '.join(PROGRESS_FIELDS)})",
)
REPLAY_FIELDS = ("run", "ok", "decisions", "versions", "model_sha256", "problems")
AUDIT_FIELDS = ("run", "ok", "commits", "updates", "pruned", "problems")


@click.group(cls=Group, examples=("covey run submit digits.toml --watch", "covey run show digits --json"))
def run() -> None:
    """Submit runs and look at them.

    RUN is a run's id, or its name if only one run has it.
    """


@run.command(
    examples=(
        "covey run submit digits.toml --data-dir /srv/covey",
        "covey run submit digits.toml --server host:7400 --identity ~/alice --watch",
        "RUN=$(covey run submit digits.toml)",
    ),
    json_fields=RUN_DETAIL_FIELDS,
)
@click.argument("spec", metavar="SPEC.toml", type=EXISTING_FILE)
@click.option("--watch", "watching", is_flag=True, help="Then follow it to its end; exit code 1 if it fails.")
@json_option
@target_options
def submit(spec: Path, watching: bool, as_json: bool, target: Target) -> None:
    """Check the specification SPEC.toml, queue the run, and print its id."""
    from covey.spec import parse_toml

    text = _read_text(spec)
    parse_toml(text)
    from covey.cli.framework.connection import connect
    from covey.protos import admin_pb2 as pb

    with connect(target) as admin:
        request = pb.SubmitRunRequest(spec_toml=text)
        submitted = admin.call("SubmitRun", request, deadline_s=SUBMIT_DEADLINE_S)
    if not (as_json and watching):
        _print_submitted(submitted, as_json)
    if watching:
        _follow(target, submitted.run, as_json)


def _print_submitted(submitted: pb.Run, as_json: bool) -> None:
    if as_json:
        print_json(plain(submitted, RUN_DETAIL_FIELDS))
    else:
        click.echo(submitted.run)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Failure(f"{path} is not a text file: {error}") from error


@run.command(
    "list",
    examples=("covey run list --data-dir /srv/covey", "covey run list --json --limit 10"),
    json_fields=("(a list)", *RUN_FIELDS),
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many.")
@json_option
@target_options
def list_runs(limit: int, as_json: bool, target: Target) -> None:
    """List runs, the newest first. Also works while the coordinator is stopped."""
    from covey.cli.framework.offline import reader

    with reader(target) as source:
        runs = source.runs(limit)
    if as_json:
        print_json(plain_list(runs, RUN_FIELDS))
        return
    from covey.cli.views import tables

    tables.show(tables.run_table(runs))


@run.command(
    examples=("covey run show digits --data-dir /srv/covey", "covey run show digits --json"),
    json_fields=RUN_DETAIL_FIELDS,
)
@click.argument("run")
@json_option
@target_options
def show(run: str, as_json: bool, target: Target) -> None:
    """Show RUN: its state, what it waits for, its newest model.

    Also works while the coordinator is stopped.
    """
    from covey.cli.framework.offline import reader

    with reader(target) as source:
        found = source.run(run)
    if as_json:
        print_json(plain(found, RUN_DETAIL_FIELDS))
        return
    from covey.cli.views import tables

    tables.show(tables.run_details(found))


@run.command(
    examples=("covey run watch digits --data-dir /srv/covey", "covey run watch digits --json | jq .run.state"),
    json_fields=WATCH_FIELDS,
)
@click.argument("run")
@json_option
@target_options
def watch(run: str, as_json: bool, target: Target) -> None:
    """Follow RUN to its end; exit code 1 if it fails.

    On a terminal this is a live table, else a line for each change.
    """
    _follow(target, run, as_json)


def _follow(target: Target, run: str, as_json: bool) -> None:
    from covey.cli.views.watching import follow, view_for

    ended = follow(target, run, view_for(as_json))
    if ended.state != "completed":
        raise Failure(f"run {ended.run} is {ended.state}: {ended.reason or 'no reason was given'}")


@run.command(examples=("covey run stop digits --data-dir /srv/covey",), json_fields=RUN_DETAIL_FIELDS)
@click.argument("run")
@json_option
@target_options
def stop(run: str, as_json: bool, target: Target) -> None:
    """Stop RUN; its committed versions stay."""
    from covey.cli.framework.connection import connect
    from covey.protos import admin_pb2 as pb

    with connect(target) as admin:
        stopped = admin.call("StopRun", pb.RunRequest(run=run), deadline_s=STOP_DEADLINE_S)
    if as_json:
        print_json(plain(stopped, RUN_DETAIL_FIELDS))
    else:
        stopping = "" if stopped.state == "stopped" else "; it stops as soon as it can"
        click.echo(f"run {stopped.run} is {stopped.state}{stopping}")


@run.command(
    examples=(
        "covey run export digits --to model.safetensors --data-dir /srv/covey",
        "covey run export digits --to best.safetensors --version best",
        "python -c \"import safetensors.torch as s; print(s.load_file('model.safetensors').keys())\"",
    ),
    json_fields=("file", *VERSION_FIELDS),
)
@click.argument("run")
@click.option("--to", "path", required=True, type=FILE, help="The file to write; replaced only when all is there.")
@click.option("--version", default="newest", show_default=True, help="A version's number, `newest` or `best`.")
@json_option
@target_options
def export(run: str, path: Path, version: str, as_json: bool, target: Target) -> None:
    """Write a model of RUN as a safetensors file, which plain PyTorch loads.

    Also works while the coordinator is stopped.
    """
    from covey.cli.framework.offline import reader
    from covey.cli.views.export import export_version, version_number

    number = version_number(version)
    with reader(target) as source:
        found = export_version(source, run, number, path)
    if as_json:
        print_json({"file": str(path), **plain_version(found)})
    else:
        click.echo(f"version {found.version}, {found.artifact.size_bytes} bytes, written to {path}")


@run.command(
    examples=("covey run audit digits --data-dir /srv/covey", "covey run audit digits --json"), json_fields=AUDIT_FIELDS
)
@click.argument("run")
@json_option
@target_options
def audit(run: str, as_json: bool, target: Target) -> None:
    """Check every signature of RUN and the chain of its commits. Exit code 1 if anything is wrong.

    Also works while the coordinator is stopped.
    """
    from covey.cli.framework.offline import reader
    from covey.cli.views.auditing import audit_run

    with reader(target) as source:
        report = audit_run(source, run)
    if as_json:
        print_json({name: getattr(report, name) for name in AUDIT_FIELDS})
    else:
        click.echo(report.text())
    if not report.ok:
        raise Failure(f"{len(report.problems)} problems were found in run {report.run}")


@run.command(
    examples=("covey run replay digits --data-dir /srv/covey", "covey run replay digits --json"),
    json_fields=REPLAY_FIELDS,
)
@click.argument("run")
@click.option("--data-dir", type=FOLDER, envvar="COVEY_HOME", required=True, help="The coordinator's data directory.")
@click.option("--store", "store_url", envvar="COVEY_STORE", help="The database's URL, where it is not SQLite.")
@click.option("--allow-paths", is_flag=True, help="Let the run name a task installed here as package.module:Class.")
@json_option
def replay(run: str, data_dir: Path, store_url: str | None, allow_paths: bool, as_json: bool) -> None:
    """Make every round, or decision, of RUN again from its stored updates, and compare the models.

    It needs the files of all updates: give the run a large enough [keep] updates. The coordinator may be running.
    Exit code 1 if anything comes out differently.
    """
    from covey.cli.views.replaying import replay_run, report_fields, report_text

    with click.progressbar(length=1000, label="replay", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def show(done: int, whole: int) -> None:
            bar.update(done * 1000 // whole - bar.pos)

        report = replay_run(data_dir, store_url, run, allow_path=allow_paths, on_progress=show)
    fields = report_fields(report)
    if as_json:
        print_json({name: fields[name] for name in REPLAY_FIELDS})
    else:
        click.echo(report_text(report))
    if not report.ok:
        raise Failure(f"run {report.run} does not come out as recorded")


@run.command(examples=("covey run debug /srv/covey/events/3f0c9a5d7e21.jsonl",))
@click.argument("log", type=EXISTING_FILE)
def debug(log: Path) -> None:
    """Replay LOG, a file of `events` in a coordinator's data directory, and print every event with its actions.

    It ends with the machine's state. No coordinator, record or worker is needed. Exit code 1 where the machine asks for
    other actions than were recorded.
    """
    from covey.cli.views.debugging import print_log

    differences = print_log(log, click.echo)
    if differences:
        raise Failure(f"{differences} events led to other actions than were recorded in {log}")
