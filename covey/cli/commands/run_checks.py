"""`covey run audit | bundle | replay | debug`: whether what is on record of a run is what happened.

And what `covey run submit --dry-run` prints.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Command, Failure, print_json
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import plain
from covey.cli.framework.options import (
    EXISTING_FILE,
    FILE,
    FOLDER,
    json_option,
    named_paths,
    target_of,
    target_options,
    where_options,
)

if TYPE_CHECKING:
    from covey.client.models.checking import CheckedRun
    from covey.client.target import Target

REPLAY_FIELDS = ("run", "ok", "decisions", "versions", "model_sha256", "problems")
AUDIT_FIELDS = ("run", "ok", "commits", "updates", "pruned", "statements", "problems", "notes")


@click.command(
    cls=Command,
    examples=(
        "covey run audit digits --data-dir /srv/covey",
        "covey run audit digits --json",
        "covey run audit digits.bundle --identity ~/audit",
        "covey run audit digits --data-dir /srv/covey --receipts /srv/node/receipts/3f0c9a5d7e21.jsonl",
    ),
    json_fields=AUDIT_FIELDS,
)
@click.argument("run", metavar="RUN|BUNDLE")
@click.option(
    "--receipts",
    type=EXISTING_FILE,
    multiple=True,
    help="A node's receipts/RUN.jsonl: updates that must be on record. May be repeated.",
)
@json_option
@where_options
def audit(
    run: str,
    receipts: tuple[Path, ...],
    as_json: bool,
    data_dir: Path | None,
    server: str | None,
    identity: Path | None,
) -> None:
    """Compare what is shown of RUN with what was signed of it. Exit code 1 if anything is wrong.

    Also works while the coordinator is stopped, and with a BUNDLE (a file that `covey run bundle` wrote) without any
    coordinator: --identity is then the folder of an admin or auditor, whose keys are trusted.
    """
    from covey.cli.views.reports import audit_text

    gc.disable()  # millions of rows that all stay until the end: looking through them for garbage costs a quarter
    lines = [line for path in receipts for line in path.read_bytes().splitlines()]
    if Path(run).is_file():
        from covey.client.audit.bundle import audit_bundle

        trusted = identity if identity is not None or data_dir is None else data_dir / "admin"
        if trusted is None:
            raise click.UsageError("say whose keys to trust: --identity DIR, the folder of an admin or auditor")
        report = audit_bundle(Path(run), trusted, lines)
    else:
        with connected(target_of(data_dir, server, identity)) as connection:
            report = connection.audit(run, lines)
    if as_json:
        print_json(plain(report, AUDIT_FIELDS))
    else:
        click.echo(audit_text(report))
    if not report.ok:
        raise Failure(f"{len(report.problems)} problems were found in run {report.run}")


@click.command(
    cls=Command,
    examples=("covey run bundle digits --to digits.bundle --data-dir /srv/covey",),
    json_fields=("run", "file", "rows"),
)
@click.argument("run")
@click.option("--to", "path", type=FILE, required=True, help="The file to write.")
@json_option
@target_options
def bundle(run: str, path: Path, as_json: bool, target: Target) -> None:
    """Write all that an audit of RUN needs into one file, for somebody who cannot reach the coordinator.

    It holds the record of the run and its signatures, no models and no updates.
    """
    with connected(target) as connection:
        rows = connection.bundle(run, path)
    if as_json:
        print_json({"run": run, "file": str(path), "rows": rows})
    else:
        click.echo(
            f"{rows} rows of run {run} written to {path}; check them with: covey run audit {path} --identity DIR"
        )


@click.command(
    cls=Command,
    examples=(
        "covey run replay digits --data-dir /srv/covey",
        "covey run replay scans --data-dir /srv/covey --allow-paths --path trusted=/srv/scans",
        "covey run replay digits --json",
    ),
    json_fields=REPLAY_FIELDS,
)
@click.argument("run")
@click.option("--data-dir", type=FOLDER, envvar="COVEY_HOME", required=True, help="The coordinator's data directory.")
@click.option("--store", "store_url", envvar="COVEY_STORE", help="The database's URL, where it is not SQLite.")
@click.option("--allow-paths", is_flag=True, help="Let the run name tasks and rules as package.module:Class.")
@click.option("--path", "paths", multiple=True, metavar="NAME=PATH", help="Where the task finds central data.")
@json_option
def replay(
    run: str, data_dir: Path, store_url: str | None, allow_paths: bool, paths: tuple[str, ...], as_json: bool
) -> None:
    """Make every round, or decision, of RUN again from its stored updates, and compare the models.

    It needs the files of all updates: give the run a large enough [keep] updates. The coordinator may be running.
    Exit code 1 if anything comes out differently.
    """
    from covey.cli.views.reports import replay_text
    from covey.client.replay import replay_run

    with click.progressbar(length=1000, label="replay", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def show(done: int, whole: int) -> None:
            bar.update(done * 1000 // whole - bar.pos)

        report = replay_run(
            data_dir, run, store_url=store_url, allow_path=allow_paths, data_paths=named_paths(paths), on_progress=show
        )
    if as_json:
        print_json(plain(report, REPLAY_FIELDS))
    else:
        click.echo(replay_text(report))
    if not report.ok:
        raise Failure(f"run {report.run} does not come out as recorded")


@click.command(cls=Command, examples=("covey run debug /srv/covey/events/3f0c9a5d7e21.jsonl",))
@click.argument("log", type=EXISTING_FILE)
def debug(log: Path) -> None:
    """Replay LOG, a file of `events` in a coordinator's data directory, and print every event with its actions.

    It ends with the machine's state. No coordinator, record or worker is needed. Exit code 1 where the machine asks for
    other actions than were recorded.
    """
    from covey.cli.views.debugging import print_log
    from covey.client.event_log import unfinished_lines

    differences = print_log(log, click.echo)
    for number in unfinished_lines(log):
        click.echo(f"line {number} is unfinished, as a crash leaves it: what came after it is not in the log", err=True)
    if differences:
        raise Failure(f"{differences} events led to other actions than were recorded in {log}")


def print_checked(checked: CheckedRun, as_json: bool) -> None:
    """What a submission would come to."""
    if as_json:
        print_json(asdict(checked))
        return
    from covey.cli.views import tables
    from covey.cli.views.reports import checked_run

    tables.show(*checked_run(checked))
