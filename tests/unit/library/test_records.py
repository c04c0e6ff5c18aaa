"""Lists of records: as rows, as a data frame, as a table that nothing in them can break out of."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from types import ModuleType

import pytest

from covey.library.records import CELL, SHOWN, Records

EVIL = '<script>alert("1")</script>'


@dataclass(frozen=True)
class Item:
    node: str
    committed_at: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def test_it_is_a_sequence() -> None:
    items = [Item("a"), Item("b"), Item("c")]
    records = Records(items)
    assert (len(records), records[0], list(records[1:]), records == items) == (3, items[0], items[1:], True)
    assert isinstance(records[:1], Records)
    assert Records([1]) != [2]


def test_rows_are_flat() -> None:
    records = Records([Item("a", 1.0, {"accuracy": 0.5}), Item("b")])
    assert records.rows() == [
        {"node": "a", "committed_at": 1.0, "metrics.accuracy": 0.5},
        {"node": "b", "committed_at": None},
    ]


def test_a_table_shows_the_last_ones_and_nothing_hostile_in_it_works() -> None:
    page = Records([Item(f"n{number}") for number in range(SHOWN + 1)] + [Item(EVIL, 0.0, {EVIL: 1 / 3})])._repr_html_()
    assert "<script" not in page
    assert page.count("<tr>") == SHOWN + 1
    assert f"the last {SHOWN} of {SHOWN + 2}" in page
    assert "1970-01-01 00:00:00 UTC" in page
    assert "0.333333" in page
    assert "x" * CELL not in Records([{"text": "x" * 1000}])._repr_html_()


def test_a_table_has_the_named_columns_that_there_are() -> None:
    page = Records([{"a": 1, "b": 2}], ("b", "none"))._repr_html_()
    assert "<th>b</th>" in page
    assert "<th>a</th>" not in page
    assert "none" not in page


def test_a_frame_needs_pandas_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str) -> ModuleType:
        if name == "pandas":
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas; or use rows"):
        Records([{"a": 1}]).to_frame()


def test_a_frame_has_times_as_times() -> None:
    pandas = pytest.importorskip("pandas", reason="to_frame is for those who have it")
    frame = Records([Item("a", 1.5, {"accuracy": 0.5}), Item("b")]).to_frame()
    assert list(frame.columns) == ["node", "committed_at", "metrics.accuracy"]
    assert frame["committed_at"][0] == pandas.Timestamp(1.5, unit="s", tz="UTC")
    assert frame["committed_at"].isna()[1]
