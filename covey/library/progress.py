"""How far a run is, while it is waited for: a bar in a notebook, lines on standard error elsewhere."""

from __future__ import annotations

import contextlib
import html
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from covey.client.values import Change, Run

Show = Callable[[Change], object]


@contextlib.contextmanager
def progress_of(wanted: bool | None) -> Iterator[Show]:
    """What is to be called with each change.

    Args:
        wanted: Whether progress is shown; None: in a notebook only.
    """
    display = _notebook()
    if wanted is False or (wanted is None and display is None):
        yield lambda change: None
    elif display is None:
        yield _Lines()
    else:
        yield _Bar(display)


def _notebook() -> Any:
    """IPython's `display` module where the code runs in a kernel; else None. Nothing is imported for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return importlib.import_module("IPython.display")


class _Lines:
    """A line when a round has ended, or the state or its reason has changed."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, change: Change) -> None:
        text = _text(change.run)
        if text != self._said:
            self._said = text
            print(text, file=sys.stderr, flush=True)


class _Bar:
    """One bar, which is drawn again in its place."""

    def __init__(self, display: Any) -> None:
        self._display = display
        self._handle = display.display(display.HTML(""), display_id=True)

    def __call__(self, change: Change) -> None:
        run = change.run
        bar = f'<progress value="{run.done}" max="{max(run.whole, 1)}"></progress> {html.escape(_text(run))}'
        self._handle.update(self._display.HTML(bar))


def _text(run: Run) -> str:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in run.metrics.items() if isinstance(value, float))
    told = [f"{run.name}: {run.state}, {run.done} of {run.whole} {run.unit}", metrics, run.reason]
    return "; ".join(part for part in told if part)
