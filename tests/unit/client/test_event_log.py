"""Event logs of other versions are replayed where the machines do the same; else it is said who wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from covey import __version__
from covey.cli.main import covey as command
from covey.client.event_log import MachineState, debug_log
from covey.coordinator.modes.asynchronous.events import AsyncRunPolicy
from covey.coordinator.modes.asynchronous.machine import AsyncMachine
from covey.coordinator.modes.gossip.events import GossipRunPolicy
from covey.coordinator.modes.gossip.machine import GossipMachine
from covey.coordinator.modes.registry import ASYNC, GOSSIP, ROUNDS
from covey.coordinator.modes.rounds.events import RoundPolicy
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.errors import StoreError
from covey.machines import protocol as pr
from covey.machines.log import Opening, Replayed, entry_line, machine_of, opening_line
from covey.machines.values import ValueTable

OLDER = Path(__file__).parent / "data" / "events_of_an_older_version.jsonl"
"""A run of two rounds, by a version in which a round's deadline was no object of its own."""


def written(path: Path, *, without: str = "", **changes: str) -> Path:
    """A log of this version's, whose opening says something else of who wrote it."""
    machine = RoundMachine(RoundPolicy(2, min_nodes=1), ("ada",), {})
    opening = json.loads(opening_line(1.0, "rounds", "run", machine, ROUNDS)) | changes
    opening = {name: value for name, value in opening.items() if value}
    opening["machine"].pop(without, None)
    events: list[pr.SharedEvent] = [pr.Started(1.0), pr.NodeJoined("ada", 2.0)]
    lines = [entry_line(2.0, event, machine.handle(event), ROUNDS) for event in events]
    path.write_bytes(json.dumps(opening).encode() + b"\n" + b"".join(lines))
    return path


def test_an_opening_says_which_version_and_which_code_wrote_it(tmp_path: Path) -> None:
    opening, *_ = debug_log(written(tmp_path / "log.jsonl"))
    assert isinstance(opening, Opening)
    assert (opening.version, opening.code) == (__version__, ROUNDS.code_sha256)


@pytest.mark.parametrize("changes", [{"covey": "0.0.9", "code": "0" * 16}, {"covey": "", "code": ""}])
def test_another_versions_log_is_replayed_where_its_machine_does_the_same(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    items = list(debug_log(written(tmp_path / "log.jsonl", **changes)))
    assert [type(item) for item in items] == [Opening, Replayed, Replayed, MachineState]
    assert not any(item.difference for item in items if isinstance(item, Replayed))


def test_a_difference_of_this_versions_own_machine_is_shown_as_one(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl")
    path.write_text(path.read_text().replace('"sha256":"', '"sha256":"x'))
    assert all(item.difference for item in debug_log(path) if isinstance(item, Replayed))


def test_an_older_versions_log_that_cannot_be_replayed_says_so_in_words() -> None:
    with pytest.raises(StoreError, match="written by a version of covey that did not note which one it was"):
        list(debug_log(OLDER))
    done = CliRunner().invoke(command, ["run", "debug", str(OLDER)])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert f"is another one than that of covey {__version__}" in done.output
    assert "replay it with the version that wrote it" in done.output
    assert "Traceback" not in done.output


def test_a_newer_versions_log_names_it(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", covey="9.0.0", code="0123456789abcdef")
    path.write_text(path.read_text().replace('"Started"', '"Begun"'))
    with pytest.raises(StoreError, match=r"written by covey 9\.0\.0 \(code 0123456789abcdef\), .*'Begun'"):
        list(debug_log(path))


def test_fields_that_an_older_machine_did_not_have_are_as_they_are_at_the_start(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", covey="0.0.9", code="0" * 16, without="_has_place")
    assert [type(item) for item in debug_log(path)] == [Opening, Replayed, Replayed, MachineState]


@pytest.mark.parametrize(
    ("kind", "table", "machine"),
    [
        ("gossip", GOSSIP, GossipMachine(GossipRunPolicy(1))),
        ("async", ASYNC, AsyncMachine(AsyncRunPolicy(2, min_nodes=1), ("ada",))),
    ],
)
def test_so_it_is_with_machines_of_other_modes(kind: str, table: ValueTable, machine: Any) -> None:
    state = json.loads(opening_line(1.0, kind, "run", machine, table))["machine"]
    older = machine_of(Opening(1.0, kind, "run", {k: v for k, v in state.items() if "has_place" not in k}), table)
    events = (pr.PauseChanged(False, 1.0), pr.Started(1.0), pr.NodeJoined("ada", 2.0), pr.Tick(99.0))
    assert [older.handle(event) for event in events] == [machine.handle(event) for event in events]


def test_a_replay_goes_on_after_a_part_that_it_cannot_replay(tmp_path: Path) -> None:
    wrong = written(tmp_path / "log.jsonl", covey="0.0.9", code="0" * 16).read_text().replace('"Started"', '"Begun"')
    right = written(tmp_path / "log.jsonl", covey="0.0.9", code="0" * 16).read_text()
    (tmp_path / "log.jsonl").write_text(wrong + right)
    items: list[Opening | Replayed | MachineState] = []
    with pytest.raises(StoreError, match="'Begun'"):
        items.extend(debug_log(tmp_path / "log.jsonl"))
    assert [type(item) for item in items] == [Opening, Opening, Replayed, Replayed, MachineState]
