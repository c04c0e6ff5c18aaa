"""The tables of fixed times in the pages are those of the program."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<seconds>[0-9.]+) \| `(?P<constant>covey\.[A-Za-z_.]+)` \|$", re.M)
ROWS = [
    pytest.param(float(row["seconds"]), row["constant"], id=f"{page}: {row['what']}")
    for page in ("watching.md", "deploy.md")
    for row in ROW.finditer((DOCS / page).read_text())
]


def test_both_pages_have_such_tables() -> None:
    assert len(ROWS) > 30
    assert sum("LOOK_AGAIN_S" in str(row.values[1]) for row in ROWS) == 3


@pytest.mark.parametrize(("seconds", "constant"), ROWS)
def test_a_fixed_time_is_what_the_page_says(seconds: float, constant: str) -> None:
    path, _, name = constant.rpartition(".")
    if path.rpartition(".")[2][:1].isupper():  # a field of a class
        module, _, owner = path.rpartition(".")
        value = getattr(import_module(module), owner).__dataclass_fields__[name].default
    else:
        value = getattr(import_module(path), name)
    assert value / (1000 if name.endswith("_MS") else 1) == pytest.approx(seconds)
