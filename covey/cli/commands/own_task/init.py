"""`covey init`: a task of one's own to start from."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import click

from covey.cli.framework.command import Command, Failure
from covey.cli.framework.options import FOLDER

NAME = re.compile(r"[a-z][a-z0-9_]*")


@click.command(cls=Command, examples=("covey init tumours", "covey init work/tumours --name tumours"))
@click.argument("folder", type=FOLDER)
@click.option("--name", help="Of the task, as a Python module [default: the folder's name].")
def init(folder: Path, name: str | None) -> None:
    """Write a task to start from into FOLDER: a package, made-up data, a run specification, a test."""
    from covey.cli.commands.own_task.init_files import files_of

    module = (name or folder.absolute().name).replace("-", "_").lower()
    if not NAME.fullmatch(module) or keyword.iskeyword(module):
        raise Failure(f"{module!r} cannot be a Python module's name; give another one with --name, as --name tumours")
    files = files_of(module)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if existing := [name for name in files if (folder / name).exists()]:
            raise Failure(f"{folder} has {', '.join(existing)} already; nothing was written")
        for file, text in files.items():
            (folder / file).write_text(text)
    except OSError as error:
        raise Failure(f"cannot write into {folder}: {error.strerror}") from error
    click.echo(f"written into {folder}: {', '.join(files)}")
    click.echo("try it:")
    click.echo(f"  cd {folder}")
    click.echo(f"  covey task check --spec run.toml --data table={module}.csv")
    click.echo(f"  covey simulate run.toml --nodes 4 --path table={module}.csv")
