"""Every file of the rooms that decide what a run does has a unit test that imports it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = [
    "coordinator/runs",
    "coordinator/modes",
    "coordinator/nodes",
    "node/assignments",
    "covey/machines",
    "covey/driver",
]
SINGLE = ["node/actor.py", "node/services.py", "node/updates.py"]
PROTOCOLS = {"covey.coordinator.runs.mode", "covey.coordinator.modes.contract"}
"""Only contracts: what a mode's room offers is tested with each mode."""


def modules() -> list[str]:
    """The modules of those rooms, as they are imported."""
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"]
    files += [ROOT / name for name in SINGLE]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return sorted(name if name.startswith("covey.") else f"covey.{name}" for name in names)


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """What the unit tests import: modules, and names in them."""
    found: set[str] = set()
    for path in (ROOT / "tests" / "unit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    return found


def test_the_rooms_are_where_they_are_looked_for() -> None:
    assert len(modules()) > 50


def test_every_file_is_imported_by_a_unit_test(imported: set[str]) -> None:
    assert [name for name in modules() if name not in imported | PROTOCOLS] == []
