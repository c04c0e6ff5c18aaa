"""Executes a notebook's cells in this process, and makes of what they come to what a notebook would show."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any, NamedTuple


class Shown(NamedTuple):
    """A code cell that was executed: its text, and its last expression's value (None: it ends with a statement)."""

    source: str
    value: object
    html: str
    """As the notebook shows that value; empty: as text."""


def cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook, with their stored outputs."""
    notebook = json.loads(path.read_text())
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def execute(path: Path) -> tuple[list[Shown], dict[str, Any]]:
    """Execute the code cells in order, in one new namespace; what they show, and the namespace.

    Cells are plain Python, without magics. What a cell raises ends it.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    return [_executed("".join(cell["source"]), names) for cell in cells(path)], names


def _executed(source: str, names: dict[str, Any]) -> Shown:
    tree, value = ast.parse(source), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    show = getattr(value, "_repr_html_", None)
    return Shown(source, value, show() if show else "")
