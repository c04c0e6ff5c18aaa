"""Pages name only tests that are there, so that what they say can be checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    known = [
        f"/{path.relative_to(ROOT)}" for folder in ("tests", "examples") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    for name in re.findall(r"`([\w/]*test_\w+\.py)", page.read_text()):
        assert any(path.endswith(f"/{name}") for path in known), f"{name} is not there"
