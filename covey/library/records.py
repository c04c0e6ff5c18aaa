"""Lists of records that show themselves as a table in a notebook, and become a data frame where pandas is there."""

from __future__ import annotations

import datetime as dt
import html
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, overload

from typing_extensions import override

T = TypeVar("T")
SHOWN = 50
"""Rows of a table in a notebook: the last ones."""
CELL = 60
"""Characters of a cell there."""


class Records(Sequence[T]):
    """Frozen dataclasses, or mappings, in order.

    Args:
        items: All of one kind.
        columns: What a table shows of each; default: every field.
    """

    def __init__(self, items: Sequence[T], columns: Sequence[str] = ()) -> None:
        self._items, self._columns = tuple(items), tuple(columns)

    @override
    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> Records[T]: ...

    @override
    def __getitem__(self, place: int | slice) -> T | Records[T]:
        if isinstance(place, slice):
            return Records(self._items[place], self._columns)
        return self._items[place]

    @override
    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    @override
    def __eq__(self, other: object) -> bool:
        return self._items == tuple(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @override
    def __repr__(self) -> str:
        return f"Records({list(self._items)!r})"

    def rows(self) -> list[dict[str, Any]]:
        """Each record as one flat row: a mapping's keys are columns of their own, `metrics.accuracy`."""
        return [_row(item) for item in self._items]

    def to_frame(self) -> Any:
        """The rows as a `pandas.DataFrame`; times (`..._at`, Unix seconds) as UTC timestamps.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("to_frame needs pandas: pip install pandas; or use rows()") from error
        frame = pandas.DataFrame(self.rows())
        for column in frame.columns:
            if str(column).endswith("_at"):
                frame[column] = pandas.to_datetime(frame[column], unit="s", utc=True)
        return frame

    def _repr_html_(self) -> str:
        rows = self.rows()[-SHOWN:]
        names = [name for name in self._columns or _names(rows) if any(name in row for row in rows)]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_text(name, row.get(name)))}</td>" for name in names) + "</tr>"
            for row in rows
        )
        left = len(self._items) - len(rows)
        note = f"<p>the last {len(rows)} of {len(self._items)}; rows() and to_frame() have all</p>" if left else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _row(item: Any) -> dict[str, Any]:
    pairs: Mapping[str, Any]
    if is_dataclass(item) and not isinstance(item, type):
        pairs = {field.name: getattr(item, field.name) for field in fields(item)}
    else:
        pairs = dict(item)
    return flat(pairs)


def flat(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """One row: the keys of a mapping in it are columns of their own, `metrics.accuracy`."""
    row: dict[str, Any] = {}
    for name, value in pairs.items():
        if isinstance(value, Mapping):
            row |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            row[name] = value
    return row


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name.endswith("_at") and isinstance(value, int | float):
        return f"{dt.datetime.fromtimestamp(value, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        value = ", ".join(map(str, value))
    text = str(value)
    return text if len(text) <= CELL else text[: CELL - 1] + "…"
