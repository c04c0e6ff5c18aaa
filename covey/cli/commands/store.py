"""`covey store`: bring the record's database up to date, copy it, look for contradictions and damaged files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Failure, Group, print_json
from covey.cli.framework.options import EXISTING_FOLDER, FOLDER, F, json_option

if TYPE_CHECKING:
    from covey.coordinator.backup.offsite import Moved

MOVED_FIELDS = ("backup", "address", "files", "bytes")


@click.group(cls=Group, examples=("covey store migrate --data-dir /srv/covey", "covey store check"))
def store() -> None:
    """Look after the record's database; needs no coordinator, and for `migrate` and `copy` none may run."""


def where_options(command: F) -> F:
    """Give a command the options that say which database is meant, as `data_dir` and `store_url`."""
    url = click.option("--store", "store_url", envvar="COVEY_STORE", help="The database's URL, where it is not SQLite.")
    folder = click.option("--data-dir", type=FOLDER, envvar="COVEY_HOME", help="The coordinator's data directory.")
    return folder(url(command))


@store.command(
    examples=(
        "covey store migrate --data-dir /srv/covey",
        "COVEY_STORE=postgresql://covey@db/covey covey store migrate",
    ),
    json_fields=("store", "migrated"),
)
@where_options
@json_option
def migrate(data_dir: Path | None, store_url: str | None, as_json: bool) -> None:
    """Bring the database to this version's schema; a coordinator does so by itself when it starts."""
    from covey.storage.sql.store import migrate as migrate_database

    url = _url(data_dir, store_url)
    migrate_database(url)
    if as_json:
        print_json({"store": without_secrets(url), "migrated": True})
    else:
        click.echo(f"{without_secrets(url)} is up to date")


@store.command(
    examples=("covey store check --data-dir /srv/covey", "covey store check --json"),
    json_fields=("store", "ok", "problems"),
)
@where_options
@json_option
def check(data_dir: Path | None, store_url: str | None, as_json: bool) -> None:
    """Look for contradictions in the record, and for files that it needs and that are gone or damaged.

    With --data-dir every model and update file that is kept is read and hashed again, also where models last at an
    address (--artifacts). Exit code 1 if anything is wrong.
    """
    from covey.client.reading.stored import ARTIFACTS
    from covey.coordinator.backup.artifacts_address import noted_address
    from covey.storage.files.check import check_files
    from covey.storage.sql.store import open_store

    url = _url(data_dir, store_url)
    opened = open_store(url, migrate=False)
    try:
        problems = list(opened.check())
        if data_dir is not None:
            problems += check_files(data_dir / ARTIFACTS, opened.referenced_digests, noted_address(data_dir))
    finally:
        opened.close()
    if as_json:
        print_json({"store": without_secrets(url), "ok": not problems, "problems": problems})
    else:
        click.echo("\n".join(problems) or f"{without_secrets(url)} is consistent")
    if problems:
        raise Failure(f"{len(problems)} problems were found")


@store.command(
    examples=(
        "covey store copy --from sqlite:////srv/covey/covey.db --to postgresql://covey@db/covey",
        "covey store copy --from postgresql://covey@db/covey --to sqlite:////srv/covey/covey.db --json",
    ),
    json_fields=("from", "to", "rows (by table)"),
)
@click.option("--from", "source", required=True, metavar="URL", help="The record; no coordinator may run on it.")
@click.option("--to", "target", required=True, metavar="URL", help="An empty database.")
@json_option
def copy(source: str, target: str, as_json: bool) -> None:
    """Copy the whole record into another database: SQLite to PostgreSQL, or back.

    All of it or nothing. A URL is sqlite:////ABSOLUTE/PATH or postgresql://USER@HOST/DATABASE; give passwords by
    PGPASSWORD or PGPASSFILE, not in the URL. Model files, keys and everything else stay in the data directory.
    """
    from covey.storage.sql.copy import copy_store

    with _progress() as report:
        rows = copy_store(source, target, report)
    where = {"from": without_secrets(source), "to": without_secrets(target)}
    if as_json:
        print_json({**where, "rows": rows})
        return
    for table, count in rows.items():
        click.echo(f"{count:>10}  {table}")
    click.echo(f"copied {sum(rows.values())} rows to {where['to']}")
    click.echo("start the coordinator with that --store, and put the old database where none finds it")


@store.command(
    examples=(
        "covey store push /var/backups/covey/monday --to s3://bucket/covey --keep 7",
        "covey store push /var/backups/covey/monday --to file:///mnt/nas/covey --json",
    ),
    json_fields=MOVED_FIELDS,
)
@click.argument("folder", type=EXISTING_FOLDER)
@click.option("--to", "address", required=True, metavar="URL", help="s3://BUCKET/PREFIX, file:///PATH, ...")
@click.option(
    "--keep", type=click.IntRange(1), help="So many backups stay there: this one, the newest others [default: all]."
)
@click.option("--verify", is_flag=True, help="Read and hash what is there already, and send again what is damaged.")
@json_option
def push(folder: Path, address: str, keep: int | None, verify: bool, as_json: bool) -> None:
    """Copy a backup to an object store, or to any other address that fsspec reaches.

    FOLDER is what covey coordinator backup --to FOLDER made.

    Model and update files that are there already, of the same name and size, are not sent again. The keys of the whole
    federation go along: give the place away to nobody, and have it encrypted. Credentials come from the environment
    (AWS_...).
    """
    from covey.coordinator.backup.offsite import push as push_backup

    os.umask(0o077)
    _show_moved(push_backup(folder.absolute(), address, keep, verify), address, as_json, "copied to")


@store.command(
    examples=(
        "covey store pull s3://bucket/covey --to /var/backups/covey/again",
        "covey store pull s3://bucket/covey --name monday --to /var/backups/covey/again --json",
    ),
    json_fields=MOVED_FIELDS,
)
@click.argument("address", metavar="URL")
@click.option("--to", "folder", required=True, type=FOLDER, help="A new folder.")
@click.option("--name", default="", help="Which backup [default: the newest].")
@json_option
def pull(address: str, folder: Path, name: str, as_json: bool) -> None:
    """Copy a backup back, every file checked; go on with covey coordinator restore."""
    from covey.coordinator.backup.offsite import pull as pull_backup

    os.umask(0o077)
    _show_moved(pull_backup(address, folder, name), address, as_json, "copied from")


def _show_moved(moved: Moved, address: str, as_json: bool, what: str) -> None:
    from covey.cli.views.listing import safe_text

    for warning in moved.warnings:
        click.echo(f"warning: {safe_text(warning).plain}", err=True)
    if as_json:
        print_json(dict(zip(MOVED_FIELDS, (moved.name, address, moved.files, moved.bytes), strict=True)))
    else:
        click.echo(f"the backup {moved.name} was {what} {address}: {moved.files} files, {moved.bytes} bytes moved")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda table, copied, rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")
        yield lambda table, copied, rows: progress.update(task, description=table, completed=copied, total=rows)


def _url(data_dir: Path | None, store_url: str | None) -> str:
    from covey.coordinator.config import DATABASE, sqlite_url

    if store_url:
        return store_url
    if data_dir is None:
        raise click.UsageError("say which database: --data-dir DIR (or COVEY_HOME), or --store URL (or COVEY_STORE)")
    if not (data_dir / DATABASE).is_file():
        raise Failure(f"{data_dir} has no {DATABASE}; name a coordinator's data directory, or give --store URL")
    return sqlite_url(data_dir)


def without_secrets(url: str) -> str:
    """A database's URL to show: without the password."""
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)
