"""The specifications that the methods' pages give to copy are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from covey.spec import parse_toml
from covey.testing.method_rounds import MethodRounds

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(("page", "count"), [("leaders", 1), ("codistillation", 2)])
def test_specifications_of_a_page_are_accepted(tmp_path: Path, page: str, count: int) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == count
    for number, block in enumerate(blocks):
        assert MethodRounds(parse_toml(block), tmp_path / str(number)).description.parts
