"""Lists as CSV: columns for what is nested, nothing for nothing, and no formulas."""

from __future__ import annotations

import csv
import io
import json

import click
import pytest
from click.testing import CliRunner

from covey.cli.framework.records import Form, list_options, print_records


def printed(records: list[dict[str, object]], form: Form) -> str:
    @click.command()
    def command() -> None:
        print_records(records, form)

    return CliRunner().invoke(command).stdout


def test_a_row_has_what_is_nested_in_columns_of_its_own() -> None:
    records: list[dict[str, object]] = [
        {"round": 1, "metrics": {"accuracy": 0.5}, "nodes": ["a", "b"]},
        {"round": 2, "reason": None, "metrics": {}},
    ]
    rows = list(csv.DictReader(io.StringIO(printed(records, "csv"))))
    assert rows == [
        {"round": "1", "metrics.accuracy": "0.5", "nodes": '["a", "b"]', "reason": ""},
        {"round": "2", "metrics.accuracy": "", "nodes": "", "reason": ""},
    ]
    assert printed([], "csv") == ""
    assert printed([{"reason": "a\rb"}], "csv") == "reason\na b\n"
    assert json.loads(printed(records, "json")) == records


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_text_that_begins_like_a_formula_is_text(text: str) -> None:
    rows = list(csv.reader(io.StringIO(printed([{text: text, "number": -1}], "csv"), newline="")))
    assert rows == [[f"'{text}", "number"], [f"'{text}", "-1"]]


def test_one_form_at_a_time() -> None:
    @click.command()
    @list_options
    def command(form: Form) -> None:
        click.echo(form or "table")

    assert [CliRunner().invoke(command, arguments).stdout for arguments in ([], ["--json"], ["--csv"])] == [
        "table\n",
        "json\n",
        "csv\n",
    ]
    refused = CliRunner().invoke(command, ["--json", "--csv"])
    assert (refused.exit_code, "not both" in refused.output) == (2, True)
