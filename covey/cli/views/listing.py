"""Tables that fit the screen: what is long, or has no room, stands below the table, a line for each row."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_COLUMNS = 80
"""Width of a table that does not go to a terminal, where COLUMNS does not say another one."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: In capitals.
        right: Whether it is aligned to the right.
        below: Whether its texts stand below the table: `always`, or where the table would be too wide (those that come
            last first), or `never` (then they are broken into several lines; numbers, which are not, go below like the
            others where even that does not do).
    """

    name: str
    right: bool = False
    below: Literal["never", "narrow", "always"] = "never"


Cell = str | Text


def safe_text(text: str) -> Text:
    """What a node, or a user's code, said: nothing in it can steer the terminal."""
    return Text("".join(char if char.isprintable() else " " for char in text))


def safe_lines(text: str) -> Text:
    """The same for several lines."""
    return Text("\n").join(map(safe_text, text.splitlines()))


def console(*, no_color: bool = False) -> Console:
    """Standard output; COLUMNS says how wide it is, else the terminal. Without colours nothing is bold either.

    NO_COLOR in the environment counts, too.
    """
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else PIPE_COLUMNS
    plain = no_color or bool(os.environ.get("NO_COLOR"))
    colour: dict[str, Any] = {"no_color": True, "color_system": None} if plain else {}
    return Console(width=width, highlight=False, markup=False, emoji=False, file=sys.stdout, **colour)


def show(*things: Any) -> None:
    """Print tables and lines, an empty line between them; nothing is cut, and lines are not broken."""
    output = console()
    for number, thing in enumerate(flat(things)):
        if number:
            output.print()
        output.print(thing, soft_wrap=isinstance(thing, Text))


def flat(things: Iterable[Any]) -> Iterator[Any]:
    """What lists of lists of things to show hold, without what is empty."""
    for thing in things:
        if isinstance(thing, list | tuple):
            yield from flat(thing)
        elif thing:
            yield thing


def table(columns: Sequence[str]) -> Table:
    """An empty table; a column whose name begins with `>` is aligned to the right. What is too long is folded."""
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    for name in columns:
        justify: Literal["left", "right"] = "right" if name.startswith(">") else "left"
        text = name.lstrip(">")
        grid.add_column(text, justify=justify, no_wrap=name.startswith(">"), overflow="fold", min_width=len(text))
    return grid


def listing(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> list[Any]:
    """A table, and the lines that stand below it (nothing, where there are none).

    A column that is empty in every row is left out (unless there is no row). The first column names a row below the
    table.
    """
    columns = [replace(column, name=safe_text(column.name).plain) for column in columns]
    lines = [tuple(safe_text(cell) if isinstance(cell, str) else cell for cell in row) for row in rows]
    shown = [index for index in range(len(columns)) if not lines or any(line[index] for line in lines)]
    inside = [index for index in shown if columns[index].below != "always"]
    width = console().width
    while _width(fitted := _table(columns, inside, lines)) > width:
        movable = [index for index in inside if columns[index].below == "narrow"]
        if not movable and _width(fitted, broken=True) > width:  # numbers are not broken, and would squeeze the names
            movable = [index for index in inside[1:] if columns[index].right]
        if not movable:
            break
        inside.remove(movable[-1])
    texts = [index for index in shown if index not in inside] if lines else []
    below = [line for row in lines if (line := _line(columns, texts, row)) is not None]
    return [fitted, Text("\n").join(below)] if below else [fitted]


def _table(columns: Sequence[Column], inside: Sequence[int], lines: Iterable[Sequence[Cell]]) -> Table:
    rows = table([(">" if columns[index].right else "") + columns[index].name for index in inside])
    for line in lines:
        rows.add_row(*(line[index] for index in inside))
    return rows


def _width(shown: Table, *, broken: bool = False) -> int:
    """How wide a table is that breaks nothing; `broken`: or breaks all lines between words."""
    measured = Console(width=10_000, file=sys.stdout).measure(shown)
    return measured.minimum if broken else measured.maximum


def _line(columns: Sequence[Column], texts: Sequence[int], row: Sequence[Cell]) -> Text | None:
    texts_of_row = [Text.assemble(f"{columns[index].name.lower()} ", row[index]) for index in texts if row[index]]
    return Text.assemble(row[0], ": ", Text("; ").join(texts_of_row)) if texts_of_row else None


def pairs(rows: Iterable[tuple[str, Any]]) -> Text:
    """Names and values, one pair a line; without those that have no value."""
    shown = [(name, value) for name, value in rows if value not in ("", None)]
    width = max((len(name) for name, _ in shown), default=0)
    return Text("\n").join(
        Text.assemble((name.ljust(width + 1), "bold"), value if isinstance(value, Text) else safe_text(str(value)))
        for name, value in shown
    )
