"""Lists for programs: as JSON, or as CSV for a table calculation."""

from __future__ import annotations

import csv
import functools
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

import click

from covey.cli.framework.command import print_json_list
from covey.library.records import flat
from covey.texts import no_formula

F = TypeVar("F", bound=Callable[..., Any])
Form = Literal["", "json", "csv"]
"""How a list is printed; empty: as a table for people."""


def list_options(command: F) -> F:
    """Give a command that lists something `--json` and `--csv`, as `form: Form`."""

    @click.option("--csv", "as_csv", is_flag=True, help="Print CSV, one line a row.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, as_csv: bool, **kwargs: Any) -> Any:
        if as_json and as_csv:
            raise click.UsageError("--json or --csv, not both")
        return command(*args, form="json" if as_json else "csv" if as_csv else "", **kwargs)

    return wrapped  # type: ignore[return-value]


def print_records(records: Iterable[Mapping[str, Any]], form: Form) -> None:
    """Write a list: JSON as it comes, CSV when all of it is known, because its columns are.

    In CSV a mapping's keys are columns of their own (`metrics.accuracy`), a list is JSON, nothing is empty, and a text
    that a table calculation would take for a formula has an apostrophe before it.
    """
    if form == "json":
        print_json_list(records)
        return
    rows = [{no_formula(key): _cell(item) for key, item in flat(record).items()} for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(sys.stdout, list(names), restval="", lineterminator="\n")
    if names:
        writer.writeheader()
        writer.writerows(rows)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str):
        return no_formula(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | Mapping) else value
