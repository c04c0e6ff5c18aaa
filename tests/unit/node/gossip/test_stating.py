"""What a node states of its part: all of its steps before their end, however long nobody listened."""

from pathlib import Path

import pytest

from covey.cli.commands.gossip.status import status_of
from covey.cli.views.gossip_status import details, table
from covey.cli.views.gossip_tables import parts
from covey.cli.views.listing import show
from covey.client.gossip_nodes import read_node
from covey.client.reading.gossip_parts import view_of
from covey.node.gossip import stating
from covey.node.gossip.stating import Stated, statement_of
from covey.protos import admin_pb2 as pb
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


async def test_which_of_its_filters_trainings_pass_is_stated_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(2, STEPS)
    unit, filters = Unit(tmp_path, spec, "ab"), ("clip-norm 1.0", "own 2")
    unit.start("a").worker.filters = filters
    unit.start("b")
    for name in unit.names:
        await unit.tasks[name]
    stated = [
        statement_of(tmp_path / name / "gossip" / "unit" / "1", spec, Stated("f" * 32, "run-1", "k" * 16, 1, 0))
        for name in unit.names
    ]
    assert [b'"filters"' in statement.to_bytes() for statement in stated] == [True, False]  # as before, where none is
    messages = [pb.GossipPart(node=each.node, state="working", statement=each.to_bytes()) for each in stated]
    view = view_of(messages, {})
    assert [part.filters for part in view.parts] == [filters, ()]
    told = status_of(read_node(tmp_path / "a"))
    assert told["filters"] == list(filters)
    for shown in (parts(view, is_ended=False), details(told), table([told])):
        show(*shown)
        assert "clip-norm 1.0, own 2" in capsys.readouterr().out
