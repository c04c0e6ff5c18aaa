"""Making what a specification names, and keeping each refusal: a user is told of all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from covey.errors import LayoutError, PluginError, SpecError, TaskError

T = TypeVar("T")
REFUSALS = (SpecError, PluginError, LayoutError, TaskError)


class Attempts:
    """What could be made, and why the rest could not."""

    def __init__(self) -> None:
        self._refused: list[SpecError | PluginError | LayoutError | TaskError] = []

    def of(self, make: Callable[[], T]) -> T | None:
        """What `make` returns; None where it refuses, which is kept."""
        try:
            return make()
        except REFUSALS as error:
            self._refused.append(error)
            return None

    def finish(self, wrong: Iterable[tuple[str, str]]) -> None:
        """Refuse, if there is anything to refuse.

        Args:
            wrong: Further keys, each with what is wrong with it.

        Raises:
            SpecError: Everything in one message, each reason once.
            PluginError, LayoutError, TaskError: It is the only reason.
        """
        reasons = [f"{key}: {reason}" for key, reason in wrong]
        texts = list(dict.fromkeys([*reasons, *map(str, self._refused)]))
        if self._refused and len(texts) == 1:
            raise self._refused[0]
        if texts:
            raise SpecError("; ".join(texts))
