"""Event logs: what is written of a real machine can be replayed from every opening, and a difference is found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.coordinator.modes.asynchronous.events import AsyncRunPolicy, Decided
from covey.coordinator.modes.asynchronous.machine import AsyncMachine
from covey.coordinator.modes.registry import ASYNC, ROUNDS
from covey.coordinator.modes.rounds.events import Aggregated, RoundCommitted, RoundPolicy
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.errors import StoreError
from covey.machines import protocol as pr
from covey.machines.log import Entry, entry_line, machine_of, opening_line, parts, read_log, replay

NODES = ("ada", "bob", "cyd")
nodes = st.sampled_from(NODES)
numbers = st.integers(1, 3)
COMMON = [
    st.builds(pr.NodeJoined, nodes, st.just(0.0)),
    st.builds(pr.NodeLost, nodes, st.just(0.0)),
    st.builds(pr.NodeRemoved, nodes, st.just(0.0)),
    st.builds(pr.UpdateStored, nodes, numbers, st.just(0.0)),
    st.builds(pr.NodeAnswered, nodes, numbers, st.sampled_from(["declined", "rejected"]), st.just("no"), st.just(0.0)),
    st.builds(pr.TransferProgressed, nodes, st.just(0.0)),
    st.builds(pr.NodeQueued, nodes, st.just(0.0)),
    st.builds(pr.Tick, st.just(0.0)),
    st.builds(pr.Evaluated, numbers, st.just(0.0)),
    st.builds(pr.PauseChanged, st.booleans(), st.just(0.0)),
]
OF_ROUNDS = st.one_of(
    *COMMON,
    st.builds(Aggregated, numbers, st.booleans(), st.just({"ada": "far"}), st.just(0.0)),
    st.builds(RoundCommitted, numbers, st.just(0.0)),
)
OF_ASYNC = st.one_of(*COMMON, st.builds(Decided, nodes, numbers, numbers, st.booleans(), st.just(0.0)))
steps = st.floats(0.0, 40.0)


def rounds_machine():
    return RoundMachine(RoundPolicy(3, min_nodes=2, quorum=0.5, deadline_s=30.0), NODES, {"ada": 0.0})


def async_machine():
    return AsyncMachine(AsyncRunPolicy(20, deadline_s=30.0), NODES, {"ada": 0.0})


def written(machine, table, events, every):
    """A log that opens anew before every so many events."""
    lines = []
    for number, event in enumerate(events):
        if number % every == 0:
            lines.append(opening_line(float(number), "some", "run", machine, table))
        lines.append(entry_line(float(number), event, machine.handle(event), table))
    return lines


def timed(events):
    now, made = 0.0, [pr.Started(0.0)]
    for event, passed in events:
        now += passed
        made.append(replace(event, now=now))
    return made


def replayed(lines, table):
    machines = []
    for opening, entries in parts(read_log(lines)):
        machine = machine_of(opening, table)
        results = list(replay(machine, entries, table))
        assert [result.difference for result in results] == [""] * len(entries)
        machines.append(table.to_json(machine))
    return machines


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(OF_ROUNDS, steps), max_size=40), st.integers(1, 10))
def test_rounds_replay_from_every_opening(events, every):
    machine = rounds_machine()
    assert replayed(written(machine, ROUNDS, timed(events), every), ROUNDS)[-1] == ROUNDS.to_json(machine)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(OF_ASYNC, steps), max_size=40), st.integers(1, 10))
def test_an_asynchronous_run_replays_from_every_opening(events, every):
    machine = async_machine()
    assert replayed(written(machine, ASYNC, timed(events), every), ASYNC)[-1] == ASYNC.to_json(machine)


EVENTS = [pr.Started(0.0), *(pr.NodeJoined(node, 1.0) for node in NODES), pr.UpdateStored("ada", 1, 2.0)]


@pytest.fixture
def lines():
    return written(rounds_machine(), ROUNDS, EVENTS, 3)


def differences(lines):
    return [
        result.difference
        for opening, entries in parts(read_log(lines))
        for result in replay(machine_of(opening, ROUNDS), entries, ROUNDS)
    ]


def test_a_difference_says_where(lines):
    assert differences(lines) == [""] * len(EVENTS)
    changed = json.loads(lines[1])
    lines[1] = json.dumps(changed | {"actions": ["FinishRun"]}).encode()
    lines[2] = json.dumps(json.loads(lines[2]) | {"sha256": "0" * 16}).encode()
    lines[3] = json.dumps(json.loads(lines[3]) | {"error": "KeyError('ada')"}).encode()
    first, second, third, *others = differences(lines)
    assert first.endswith("and is recorded to have asked for FinishRun")
    assert second.endswith("with other values than are recorded")
    assert third == "it raised nothing, and is recorded to have raised KeyError('ada')"
    assert others == ["", ""]


def test_an_error_of_the_machine_is_recorded_and_comes_again():
    machine = rounds_machine()
    machine.answers = None  # broken: whoever answers now is not found in it
    event = pr.Started(1.0)
    machine.round, machine.state = 1, "collecting"
    opening = opening_line(0.0, "rounds", "run", machine, ROUNDS)
    with pytest.raises(AttributeError) as raised:
        machine.handle(event)
    assert differences([opening, entry_line(1.0, event, (), ROUNDS, repr(raised.value))]) == [""]


def test_a_line_that_a_crash_cut_off_is_passed_over(lines):
    assert len(list(read_log([*lines, lines[-1][:20]]))) == len(lines)
    middle = [*lines[:3], lines[3][:20] + b"\n", *lines[4:]]
    kinds = [type(record).__name__ for record in read_log(middle)]
    assert kinds == ["Opening", "Entry", "Entry", "Opening", "Entry", "Entry"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda lines: [b"hello\n"], "line 1 is no line of an event log"),
        (lambda lines: [b"[]\n"], "line 1 is no line of an event log"),
        (lambda lines: lines[1:], "line 1 .* does not come after an opening"),
        (lambda lines: [lines[0], b"{", lines[1]], "line 3 .* does not come after an opening"),
        (lambda lines: [lines[0], b"{", b"{"], "line 2 is no line"),
        (lambda lines: [lines[0].replace(b'"format":1', b'"format":2')], "format 2 are not known"),
    ],
)
def test_what_is_no_log_is_refused(lines, made, message):
    with pytest.raises(StoreError, match=message):
        list(read_log(made(lines)))


def test_what_is_no_machine_or_event_is_refused(lines):
    opening, _ = next(parts(read_log(lines)))
    with pytest.raises(StoreError, match="no class named"):
        machine_of(replace(opening, state={"$": "Other"}), ROUNDS)
    with pytest.raises(StoreError, match="is no machine"):
        machine_of(replace(opening, state=3), ROUNDS)
    entry = Entry(0.0, {"$": "Tick"}, (), "")
    with pytest.raises(StoreError, match="an event cannot be read: Tick"):
        list(replay(machine_of(opening, ROUNDS), [entry], ROUNDS))
