"""What a run knows of its nodes' work, and of what went over their links: shown to people, and counted."""

from __future__ import annotations

import pytest

from covey.coordinator.admin.metrics import CoordinatorMetrics
from covey.coordinator.runs.facts import NodeProgress
from covey.coordinator.runs.progress import RunProgress
from covey.coordinator.runs.sent_again import Resent


class World:
    """One run's progress, real metrics, and a clock that a test sets."""

    def __init__(self) -> None:
        self.time = 100.0
        self.metrics = CoordinatorMetrics()
        self.progress = RunProgress("run", self.metrics, lambda: self.time)

    def counted(self, name: str, **labels: str) -> float | None:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def world() -> World:
    return World()


def test_a_phase_keeps_its_beginning_while_it_lasts(world: World) -> None:
    world.progress.entered("ada", NodeProgress("training", 1, 10))
    world.time = 105.0
    world.progress.entered("ada", NodeProgress("training", 2, 10))
    assert (world.progress.nodes["ada"].since, world.progress.nodes["ada"].step) == (100.0, 2)
    world.progress.entered("ada", NodeProgress("uploading"))
    assert world.progress.nodes["ada"].since == 105.0


def test_bytes_of_a_node_count_from_its_invitation(world: World) -> None:
    world.progress.sent("ada", 1)  # before it was invited: of the run alone
    world.progress.entered("ada", NodeProgress("invited"))
    world.progress.sent("ada", 10)
    world.progress.received("ada", 100)
    world.progress.entered("ada", NodeProgress("received"))
    ada = world.progress.nodes["ada"]
    assert (ada.bytes_sent, ada.bytes_received) == (10, 100)
    assert (world.progress.bytes_sent, world.progress.bytes_received) == (11, 100)
    world.progress.entered("ada", NodeProgress("invited"))
    assert (world.progress.nodes["ada"].bytes_sent, world.progress.nodes["ada"].bytes_received) == (0, 0)
    assert world.counted("covey_node_sent_bytes_total", node="ada") == 11
    assert world.counted("covey_node_received_bytes_total", node="ada") == 100


def test_what_passes_again_belongs_to_a_round(world: World) -> None:
    world.progress.resent("ada", 3, Resent(up=5, down=7))
    assert world.progress.sent_again.of(3) == Resent(up=5, down=7)
    assert world.counted("covey_node_resent_bytes_total", node="ada") == 12


@pytest.mark.parametrize(("state", "failed_rounds"), [("failed", 1), ("completed", 0), ("stopped", 0)])
def test_the_end_is_counted(world: World, state: str, failed_rounds: int) -> None:
    world.progress.entered("ada", NodeProgress("invited"))
    world.progress.ended(state)
    assert world.counted("covey_runs_total", state=state) == 1
    assert world.counted("covey_rounds_total", outcome="failed") == failed_rounds
