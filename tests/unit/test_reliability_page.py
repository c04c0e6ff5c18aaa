"""docs/reliability.md names only tests that are there, so that each of its rows can be checked."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def rows() -> list[str]:
    """The rows of its tables of faults, without heads and lines."""
    found: list[str] = []
    is_of_faults = False
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            is_of_faults = False
        elif is_of_faults and not line.startswith("|---"):
            found.append(line)
        is_of_faults = is_of_faults or line.startswith("| fault |")
    return found


def test_every_row_names_a_test_or_a_command_and_every_test_is_there() -> None:
    assert len(rows()) > 20
    for row in rows():
        shown_by = row.split(" | ")[-1]
        assert "`" in shown_by, f"nothing shows this: {row}"
        for name in re.findall(r"`([\w/]+\.py)[`:]", shown_by):
            assert (ROOT / "tests" / name).is_file(), f"{name} is not there: {row}"
