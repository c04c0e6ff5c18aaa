"""The decisions of a sweep: who goes on, and that a record that ends anywhere leads to where it would have led."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import sqrt
from pathlib import Path
from statistics import stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.client.sweeps.events import Asked, Decided, Event, Failed, Measured, from_json, to_json
from covey.client.sweeps.machine import Plan, SweepMachine, Work
from covey.client.sweeps.proposals import Tried, by_tpe, drawn, grid
from covey.client.sweeps.record import FILE, SweepRecord
from covey.client.sweeps.results import Mean
from covey.client.sweeps.specification import Dimension, Halving, Population
from covey.errors import Conflict, StoreError
from covey.seeds import derive_seed

SPACE = {
    "a": Dimension.model_validate({"log_uniform": (0.01, 1.0)}),
    "b": Dimension.model_validate({"choice": ("x", "y", "z")}),
    "c": Dimension.model_validate({"int": (1, 4)}),
}
HEAD = {"digest": "d", "where": {}}
HALVING, POPULATION = Halving(method="halving"), Population(method="population", every=2)
PLANS = {
    "plain": Plan(3, (1, 2), (4,), highest=True),
    "halving": Plan(8, (0, 1), (1, 3, 9), highest=False, prune=HALVING),
    "budget": Plan(30, (0,), (2, 6), highest=True, prune=HALVING, budget=20),
    "population": Plan(6, (3, 4), (2, 4, 6), highest=True, prune=POPULATION, space=SPACE, seed=5),
}


def machine_of(plan: Plan) -> SweepMachine:
    return SweepMachine(plan, lambda number, others: drawn(SPACE, plan.seed, number))


def answer(plan: Plan, work: Work) -> Measured | Failed:
    """What a run would give: it depends on nothing but what it is; one of a dozen fails."""
    key = f"{sorted(work.params.items())}/{work.source}"
    value = derive_seed(work.seed, key, work.trial, work.rung) % 100
    if value < 8:
        return Failed(work.trial, work.rung, work.seed, "it diverged")
    rounds = plan.rungs[work.rung]
    return Measured(work.trial, work.rung, work.seed, rounds, value, ((rounds, float(value)),), "run")


def go_on(
    machine: SweepMachine,
    append: Callable[[Event], object],
    choose: Callable[[Sequence[Work]], Work] = lambda work: work[0],
) -> list[Work]:
    """Drive a sweep to its end; what was measured."""
    measured = []

    def note(event: Event) -> None:
        append(event)
        machine.apply(event)

    while True:
        while (decision := machine.decide()) is not None:
            note(decision)
        if not (work := machine.work()):
            return measured
        measured.append(choose(work))
        note(answer(machine.plan, measured[-1]))


@cache
def undisturbed(name: str) -> tuple[bytes, list[Work]]:
    """The record of a sweep that nothing disturbed, and what it measured."""
    with tempfile.TemporaryDirectory(prefix="covey-sweep-") as folder:
        with SweepRecord(Path(folder), HEAD) as record:
            measured = go_on(machine_of(PLANS[name]), record.append)
        return (Path(folder) / FILE).read_bytes(), measured


@pytest.mark.parametrize("name", PLANS)
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_a_record_that_was_cut_anywhere_leads_to_the_same_decisions(name: str, data: st.DataObject) -> None:
    """At any byte, as a kill may leave it; nothing that is on record is measured again."""
    lines, whole = undisturbed(name)
    with tempfile.TemporaryDirectory(prefix="covey-sweep-") as text:
        file = Path(text) / FILE
        file.write_bytes(lines[: data.draw(st.integers(0, len(lines)))])
        with SweepRecord(file.parent, HEAD) as record:
            machine = machine_of(PLANS[name])
            for event in record.events:
                machine.apply(event)
            known = sum(isinstance(event, Measured | Failed) for event in record.events)
            assert go_on(machine, record.append) == whole[known:]
        assert file.read_bytes() == lines


@pytest.mark.parametrize("name", PLANS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_whatever_comes_first_all_is_measured_once_and_the_record_says_it_all(name: str, data: st.DataObject) -> None:
    plan = replace(PLANS[name], concurrency=3)
    events, machine = list[Event](), machine_of(plan)
    measured = go_on(machine, events.append, lambda work: data.draw(st.sampled_from(work)))
    assert len({(work.rung, work.trial, work.seed) for work in measured}) == len(measured)
    again = machine_of(plan)
    for event in events:
        again.apply(from_json(to_json(event)))
    assert [vars(trial) for trial in again.trials] == [vars(trial) for trial in machine.trials]
    assert {trial.state for trial in machine.trials} <= {"completed", "pruned", "failed"}
    if name == "population":  # one by one or many at a time: a generation is compared when all of it is known
        one_by_one = machine_of(PLANS[name])
        go_on(one_by_one, lambda event: None)
        assert [trial.decided for trial in one_by_one.trials] == [trial.decided for trial in machine.trials]


def test_only_the_best_part_goes_on_beyond_a_rung() -> None:
    """As a naive formula says: of n that came to a rung, the best max(1, n // 3)."""
    machine, events = machine_of(PLANS["halving"]), list[Event]()
    go_on(machine, events.append)
    for rung in (0, 1):
        before: list[float] = []
        for event in events:
            if not isinstance(event, Decided) or event.rung != rung or event.value is None:
                continue
            before.append(event.value)
            goes_on = event.value <= sorted(before)[max(1, len(before) // 3) - 1]
            assert event.decision == ("on" if goes_on else "pruned")
    assert {"on", "pruned", "completed"} <= {event.decision for event in events if isinstance(event, Decided)}


def test_the_worst_part_of_a_population_goes_on_from_the_best_part() -> None:
    machine = machine_of(PLANS["population"])
    go_on(machine, lambda event: None)
    first = {trial.number: trial.mean_at(0) for trial in machine.trials}
    replaced = [
        item for trial in machine.trials for item in trial.decided if item.decision == "replaced" and item.rung == 0
    ]
    assert replaced
    for item in replaced:
        assert item.source is not None
        assert first[item.source] == max(value for value in first.values() if value is not None)  # one of six: the best
        assert item.params is not None
        assert 0.01 <= float(item.params["a"]) <= 1.0
        assert item.params["b"] in ("x", "y", "z")
        assert item.params["c"] in (1, 2, 3, 4)
        assert machine.trials[item.trial].history[1] == item.params


def test_a_budget_ends_what_is_begun_and_not_what_runs() -> None:
    machine = machine_of(PLANS["budget"])
    go_on(machine, lambda event: None)
    assert 20 <= machine.rounds_run < 26
    assert len(machine.trials) < 30


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    head = {"digest": "d", "where": {"nodes": 3}}
    with SweepRecord(tmp_path, head) as record:
        with pytest.raises(Conflict, match="another process runs this sweep"):
            SweepRecord(tmp_path, head)
        record.append(Asked(0, {"a": 0.5}))
    with pytest.raises(Conflict, match="another sweep"):
        SweepRecord(tmp_path, {**head, "digest": "e"})
    with pytest.raises(Conflict, match="begun with nodes 3; it cannot go on with nodes 4"):
        SweepRecord(tmp_path, {**head, "where": {"nodes": 4}})
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"event": "asked", "trial": 7, "params": {}}\n')
    with SweepRecord(tmp_path, head) as record:
        machine = machine_of(PLANS["plain"])
        machine.apply(record.events[0])
        with pytest.raises(StoreError, match="cannot have happened"):
            machine.apply(record.events[1])
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(StoreError, match="none that this version"):
        SweepRecord(tmp_path, head)


def test_tpe_depends_on_what_is_on_record_only_and_goes_where_values_are_good() -> None:
    pytest.importorskip("optuna", reason="TPE is for those who have it")
    tried = [
        Tried(params, "completed", {4: -abs(float(params["a"]) - 0.03)})
        for params in (drawn(SPACE, 1, number) for number in range(30))
    ]
    tried += [Tried({"a": 0.02, "b": "x", "c": 1}, "running"), Tried({"a": 0.5, "b": "y", "c": 2}, "failed")]
    tried.append(Tried({"a": 0.9, "b": "y", "c": 2}, "pruned", {1: -0.87}))
    near = [by_tpe(SPACE, 7, number, tried, highest=True) for number in range(40, 48)]
    assert near == [by_tpe(SPACE, 7, number, tried, highest=True) for number in range(40, 48)]
    far = [by_tpe(SPACE, 7, number, tried, highest=False) for number in range(40, 48)]
    assert sum(float(item["a"]) for item in near) < 0.5 * sum(float(item["a"]) for item in far)
    assert all(item["b"] in ("x", "y", "z") and item["c"] in (1, 2, 3, 4) for item in near)


def test_a_grid_has_every_point_once() -> None:
    points = grid({"b": SPACE["b"], "c": SPACE["c"]})
    assert len({tuple(point.items()) for point in points}) == len(points) == 12
    assert points[:2] == [{"b": "x", "c": 1}, {"b": "x", "c": 2}]


def test_what_stop_ended_early_is_completed_after_so_many_rounds() -> None:
    machine = machine_of(PLANS["plain"])
    machine.apply(Asked(0, {}))
    for seed in (1, 2):
        machine.apply(Measured(0, 0, seed, 1 + seed, 0.5, (), "run"))
    assert machine.decide() == Decided(0, 0, "completed", "2 to 3 rounds", 0.5)


@pytest.mark.parametrize(("df", "factor"), [(30, 2.0423), (31, 2.0395), (60, 2.0003), (999, 1.9623)])
def test_an_interval_of_many_seeds_is_students(df: int, factor: float) -> None:
    values = [float(number) for number in range(df + 1)]
    half = Mean.of(values).half
    assert half is not None
    assert half / stdev(values) * sqrt(df + 1) == pytest.approx(factor, abs=5e-4)
