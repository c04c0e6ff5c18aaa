"""How every command of Covey looks: help with examples and JSON fields, errors as one line, lazy imports."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from covey.errors import CoveyError

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


class Failure(click.ClickException):
    """The thing asked for failed: one line on standard error, exit code 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """Print the reason, and what to do where the error says it."""
        click.echo(f"error: {self.message}", err=True)


class Command(click.Command):
    """A command whose help ends with examples, and with the fields of its `--json` output."""

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), json_fields: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples, self.json_fields = tuple(examples), tuple(json_fields)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the JSON fields after the options."""
        _write_fields(formatter, self.json_fields)
        _write_examples(formatter, self.examples)


class Group(click.Group):
    """A group of such commands, in the order in which they were defined."""

    command_class = Command

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), json_fields: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples, self.json_fields = tuple(examples), tuple(json_fields)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, as defined."""
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples after the commands."""
        _write_fields(formatter, self.json_fields)
        _write_examples(formatter, self.examples)


Group.group_class = Group


class RootGroup(Group):
    """The `covey` command: imports the module of a sub-command when it is needed, and reports errors."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        """Make the group.

        Args:
            args: As `click.Group`.
            lazy: Name of a sub-command to its `module:attribute`.
            kwargs: As `click.Group`.
        """
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the sub-commands; imports nothing."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one sub-command."""
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a sub-command; a `CoveyError` becomes one line and exit code 1, Ctrl-C exit code 130."""
        try:
            return super().invoke(ctx)
        except CoveyError as error:
            raise Failure(str(error)) from error
        except (KeyboardInterrupt, click.Abort):
            # It may have come between the making of a coroutine and its start: that one is given up with all the rest.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _write_fields(formatter: click.HelpFormatter, names: Sequence[str]) -> None:
    if names:
        with formatter.section("JSON fields"):
            formatter.write_text(", ".join(names))


def _write_examples(formatter: click.HelpFormatter, lines: Sequence[str]) -> None:
    if lines:
        with formatter.section("Examples"):
            for line in lines:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def print_json(value: object) -> None:
    """Write one JSON value to standard output, for people and programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_json_list(values: Iterable[object]) -> None:
    """Write a list as `print_json` does, each value as it comes: a long list is never in memory."""
    before = "["
    for value in values:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        click.echo(before + "\n  " + text.replace("\n", "\n  "), nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


def print_json_line(value: object) -> None:
    """Write one JSON value on one line, at once: for streams of values."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
    sys.stdout.flush()
