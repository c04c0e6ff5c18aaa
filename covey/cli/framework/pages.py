"""Commands that list what may be long: how much they show, and how they say that there is more."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_PAGE = 100
MAX_PAGE = 10_000


def page_options(what: str) -> Callable[[F], F]:
    """Give a command `--limit`, as `limit: int | None`, and `--all`, as `whole: bool`; not both."""
    limit = click.option(
        "--limit", type=click.IntRange(1, MAX_PAGE), help=f"At most so many [default: {DEFAULT_PAGE}]."
    )
    every = click.option("--all", "whole", is_flag=True, help=f"All {what}, however many there are.")

    def decorated(command: F) -> F:
        @functools.wraps(command)
        def checked(*args: Any, limit: int | None, whole: bool, **kwargs: Any) -> Any:
            if whole and limit is not None:
                raise click.UsageError("give --limit or --all, not both")
            return command(*args, limit=limit, whole=whole, **kwargs)

        return limit(every(checked))  # type: ignore[return-value]

    return decorated


def note_more(shown: str, further: str) -> None:
    """Say on standard error what is shown, and by which option the rest is."""
    click.echo(f"{shown}; go on with {further}, or see all of them with --all", err=True)
