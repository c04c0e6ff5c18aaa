"""`covey plugins`: what is installed on this machine that a run can name, and its options."""

from __future__ import annotations

import json
from typing import Any

import click

from covey.cli.framework.command import Failure, Group, print_json
from covey.cli.framework.options import json_option
from covey.errors import PluginError
from covey.user_code.asking import ask

PLUGIN_FIELDS = ("kind", "name", "target", "package")
SHOW_FIELDS = (*PLUGIN_FIELDS, "summary", "options (a JSON schema, or null)", "error")
LOAD_TIMEOUT_S = 120.0


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=("covey plugins", "covey plugins --json", "covey plugins show aggregator mean"),
    json_fields=("(a list)", *PLUGIN_FIELDS, "with --options also: summary, options, error"),
)
@click.option("--options", "with_options", is_flag=True, help="Import each one, and list its options.")
@json_option
@click.pass_context
def plugins(ctx: click.Context, with_options: bool, as_json: bool) -> None:
    """List what is installed here for runs to name.

    These are the tasks, aggregators, codecs, optimizers, partitions and so on of all installed packages.
    """
    if ctx.invoked_subcommand is not None:
        return
    from covey.plugins import GROUPS, installed

    plugins = [{name: getattr(p, name) for name in PLUGIN_FIELDS} for kind in GROUPS for p in installed(kind)]
    if with_options:
        plugins = describe([(entry["kind"], entry["name"]) for entry in plugins])
    if as_json:
        print_json(plugins)
        return
    from covey.cli.views import tables

    tables.show(*(_kind_lines(kind, [e for e in plugins if e["kind"] == kind], with_options) for kind in GROUPS))


def _kind_lines(kind: str, entries: list[dict[str, Any]], with_options: bool) -> Any:
    """What is installed of one kind: a line for each, its options indented below."""
    from rich.text import Text

    from covey.cli.views import tables

    if not entries:
        return None
    width = max(len(entry["name"]) for entry in entries)
    lines = [Text(kind, style="bold")]
    for entry in entries:
        package = "" if entry["package"] == "covey" else f"  ({entry['package']})"
        lines.append(tables.safe_text(f"  {entry['name']:<{width}}  {entry['target']}{package}"))
        lines += [tables.safe_text(f"    {_options_line(entry)}")] if with_options else []
    return Text("\n").join(lines)


@plugins.command(
    examples=("covey plugins show task digits", "covey plugins show server-optimizer adam --json"),
    json_fields=SHOW_FIELDS,
)
@click.argument("kind")
@click.argument("name")
@json_option
def show(kind: str, name: str, as_json: bool) -> None:
    """Show the options of one plug-in: KIND is the first column of `covey plugins`."""
    from covey.plugins import GROUPS

    if kind not in GROUPS:
        raise click.UsageError(f"no kind of plug-in is named {kind!r}; choose {', '.join(GROUPS)}")
    entry = describe([(kind, name)])[0]
    if as_json:
        print_json(entry)
    elif not entry["error"]:
        _print_entry(entry)
    if entry["error"]:
        raise Failure(str(entry["error"]))


def describe(wanted: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """What plug-ins say of themselves; a child program imports them (they may import torch, and do anything).

    Raises:
        Failure: The child ended before it answered.
    """
    try:
        options: list[dict[str, Any]] = ask("covey.cli.commands.plugin_options", wanted, LOAD_TIMEOUT_S)
    except PluginError as error:
        raise Failure(str(error)) from error
    return options


def _options_line(entry: dict[str, Any]) -> str:
    if entry["error"]:
        return f"cannot be loaded: {entry['error']}"
    return ", ".join(name for name, _, _ in _options(entry))


def _print_entry(entry: dict[str, Any]) -> None:
    from covey.cli.views import tables

    options = tables.table(["OPTION", "TYPE", "DEFAULT"])
    for option in _options(entry):
        options.add_row(*option)
    facts = [(name, entry[name]) for name in (*PLUGIN_FIELDS, "summary")]
    tables.show(tables.pairs(facts), options if options.row_count else "no options")


def _options(entry: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, type and default of each option, from the JSON schema."""
    schema = entry["options"] or {}
    required = schema.get("required", ())
    return [
        (name, _type(field), "required" if name in required else json.dumps(field.get("default")))
        for name, field in schema.get("properties", {}).items()
    ]


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "anyOf" in field:
        return " | ".join(_type(part) for part in field["anyOf"])
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[name]}" for name, sign in bounds.items() if name in field]
    return " ".join([str(field.get("type", field.get("const", "any"))), *limits])
