"""What a node states of its part: all of its steps before their end, however long nobody listened."""

from pathlib import Path

import pytest

from covey.node.gossip import stating
from covey.node.gossip.stating import Stated, statement_of
from tests.unit.node.gossip.nodes import Unit, spec_of

STEPS = 8


async def test_a_node_is_not_through_before_it_has_told_of_all_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who observes the run asks for no more once all nodes are through."""
    monkeypatch.setattr(stating, "MAX_STEPS", 5)
    spec = spec_of(2, STEPS)
    unit = Unit(tmp_path, spec, "ab")
    for name in unit.names:
        unit.start(name)
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 2
    folder, told, states, numbers = tmp_path / "a" / "gossip" / "unit" / "1", 0, [], []
    for number in (1, 2):
        stated = statement_of(folder, spec, Stated("f" * 32, "run-1", "k" * 16, number, told))
        states.append(stated.state)
        numbers += [step.step for step in stated.steps]
        told += len(stated.steps)
    assert (states, numbers) == (["working", "completed"], list(range(STEPS + 1)))
