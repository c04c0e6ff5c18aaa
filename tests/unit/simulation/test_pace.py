from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.coordinator.modes.asynchronous import events as aev
from covey.coordinator.modes.asynchronous.machine import AsyncMachine
from covey.driver.changes import Changes
from covey.errors import SpecError
from covey.machines import protocol as ev
from covey.simulation.arrival_order import Pace, Staleness, parse_staleness

POLICY = aev.AsyncRunPolicy(
    updates=1000,
    min_nodes=1,
    deadline_s=1e9,
    rejoin_s=30.0,
    evaluate_every=0,
    evaluate_centrally=False,
    evaluate_on_nodes=False,
)


def test_staleness_is_read():
    assert parse_staleness("normal:6,2") == Staleness(6.0, 2.0)
    assert parse_staleness("normal:0.5,0") == Staleness(0.5, 0.0)


@pytest.mark.parametrize("text", ["", "normal:6", "normal:-1,2", "uniform:1,2", "normal:6,2 "])
def test_other_texts_are_refused(text):
    with pytest.raises(SpecError, match="normal:MEAN,SD"):
        parse_staleness(text)


def test_draws_have_the_distribution_and_depend_on_seed_and_number_only():
    drawn = [Staleness(6, 2).draw(1, number) for number in range(3000)]
    assert drawn == [Staleness(6, 2).draw(1, number) for number in range(3000)]
    assert statistics.mean(drawn) == pytest.approx(6, abs=0.15)
    assert statistics.stdev(drawn) == pytest.approx(2, abs=0.15)
    assert drawn != [Staleness(6, 2).draw(2, number) for number in range(3000)]


@settings(deadline=None)
@given(st.integers(0, 2**40), st.floats(0, 5), st.floats(0, 10))
def test_draws_are_never_negative(number, mean, sd):
    assert Staleness(mean, sd).draw(0, number) >= 0


@dataclass
class Run:
    machine: object


class Arrivals:
    """A machine whose nodes train in a given order of speed, decided on at once; who arrived when."""

    def __init__(self, nodes, staleness, seed=5):
        self.machine = AsyncMachine(POLICY, nodes)
        self.changes, run = Changes(), Run(self.machine)
        self.pace = Pace(self.changes, lambda: run, staleness, seed)
        self.order, self.lags = [], []
        self._handle(ev.Started(0.0))
        for node in nodes:
            self._handle(ev.NodeJoined(node, 0.0))

    def _handle(self, event):
        self.machine.handle(event)
        self.changes.notify()

    async def work(self, node, slowness, whole):
        while len(self.order) < whole:
            work = self.machine.open[node]
            for _ in range(slowness):
                await asyncio.sleep(0)
            await self.pace.turn(node, work.number)
            self.order.append(node)
            self.lags.append(self.machine.committed - work.base_version)
            self._handle(ev.UpdateStored(node, work.number, 0.0))
            self._handle(aev.Decided(node, work.number, self.machine.committed + 1, True, 0.0))

    async def run(self, slowness, whole):
        tasks = [asyncio.create_task(self.work(node, slow, whole)) for node, slow in slowness.items()]
        tasks.append(asyncio.create_task(self.pace.run()))
        done, _ = await asyncio.wait(tasks, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert done, f"after {len(self.order)} of {whole} arrivals nobody goes on"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self.order[:whole]


async def arrivals(staleness, slowness, whole=60):
    return await Arrivals(sorted(slowness), staleness).run(slowness, whole)


async def test_without_draws_updates_arrive_in_the_order_of_their_assignments():
    assert await arrivals(Staleness(), {"a": 9, "b": 1, "c": 4}, 9) == ["a", "b", "c"] * 3


async def test_the_order_does_not_depend_on_who_is_faster():
    staleness = Staleness(2, 1.5)
    found = [await arrivals(staleness, speeds) for speeds in ({"a": 9, "b": 1, "c": 3}, {"a": 1, "b": 5, "c": 2})]
    assert found[0] == found[1]
    assert found[0] != ["a", "b", "c"] * 20


async def test_staleness_is_one_less_than_the_nodes_on_average_and_spread_by_the_draws():
    nodes = {f"n{k}": 1 for k in range(7)}
    still, spread = Arrivals(sorted(nodes), Staleness()), Arrivals(sorted(nodes), Staleness(6, 2))
    await still.run(nodes, 300)
    await spread.run(nodes, 300)
    assert set(still.lags[7:]) == {6}
    assert statistics.mean(spread.lags[7:]) == pytest.approx(6, abs=0.5)
    assert statistics.stdev(spread.lags[7:]) == pytest.approx(2, abs=0.7)


async def test_in_rounds_nobody_waits():
    pace = Pace(Changes(), lambda: Run(object()), Staleness(), 0)
    await asyncio.wait_for(pace.turn("a", 1), 5)
