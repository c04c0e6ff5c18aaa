"""Event logs in a folder: rotated, bounded, and never in the way of the machine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from covey.driver.driver import Driver
from covey.driver.event_log import EventLog, LogLimits
from covey.machines import protocol
from covey.machines.log import machine_of, parts, read_log, replay
from covey.machines.protocol import NodeJoined, Report, Tick
from covey.machines.values import ValueTable
from tests.unit.driver import counting_machine
from tests.unit.driver.counting_machine import CountingMachine

TABLE = ValueTable(protocol, counting_machine)
JOIN_S = 30.0


def log_in(folder, name="run", **limits):
    return EventLog(folder, "counting", name, TABLE, lambda: 5.0, LogLimits(**limits))


def fill(log, count, machine=None):
    machine = machine or CountingMachine(1000)
    log.opened(machine)
    for number in range(count):
        event = NodeJoined(f"node {number}", 1.0)
        log.took(machine, event, machine.handle(event))
    log.closed()
    assert log.join(JOIN_S)
    return machine


def read(path):
    with path.open("rb") as file:
        return list(parts(read_log(file)))


def replayed(path):
    for opening, entries in read(path):
        machine = machine_of(opening, TABLE)
        assert all(not result.difference for result in replay(machine, entries, TABLE))
        yield machine, entries


async def test_a_driver_records_what_its_machine_takes(tmp_path):
    async def do(action):
        if action == Report("joined node 1"):
            await driver.take(Tick(2.0))

    log = log_in(tmp_path)
    driver = Driver[Any, Any](do, clock=lambda: 100.0, tick=Tick, recorder=log)
    await driver.drive(CountingMachine(3), [NodeJoined("node 1", 1.0), NodeJoined("node 2", 3.0)])
    await driver.close()
    assert await asyncio.to_thread(log.join, JOIN_S)
    [(machine, entries)] = list(replayed(tmp_path / "run.jsonl"))
    assert [entry.event["$"] for entry in entries] == ["NodeJoined", "Tick", "NodeJoined"]
    assert [entry.actions for entry in entries] == [("Report",), (), ("Report",)]
    assert machine.done


async def test_an_error_of_the_machine_is_recorded_and_raised(tmp_path):
    async def do(action):
        raise AssertionError("nothing was asked for")

    log = log_in(tmp_path)
    driver = Driver[Any, Any](do, clock=lambda: 100.0, tick=Tick, recorder=log)
    with pytest.raises(ValueError, match="no node"):
        await driver.drive(CountingMachine(3), [NodeJoined("", 1.0)])
    await driver.close()
    assert await asyncio.to_thread(log.join, JOIN_S)
    [(_, [entry])] = list(replayed(tmp_path / "run.jsonl"))
    assert entry.error == "ValueError('no node')"


def test_files_are_rotated_and_each_can_be_replayed_alone(tmp_path):
    fill(log_in(tmp_path, file_bytes=1, files=3), 0)
    for _ in range(5):  # each start finds a full file
        fill(log_in(tmp_path, file_bytes=2000, files=3), 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.1.jsonl", "run.2.jsonl", "run.jsonl"]
    for path in tmp_path.iterdir():
        assert list(replayed(path))
        assert path.stat().st_mode & 0o777 == 0o600
    newest = [entry.event["node"] for _, entries in read(tmp_path / "run.jsonl") for entry in entries]
    assert newest[-1] == "node 29"


def test_a_full_file_ends_while_the_machine_goes_on(tmp_path):
    log, machine = log_in(tmp_path, file_bytes=1000, files=100), CountingMachine(1000)
    log.opened(machine)
    taken = 0
    while not (tmp_path / "run.1.jsonl").exists():  # the thread writes when it comes to it
        event = NodeJoined(f"node {taken}", 1.0)
        log.took(machine, event, machine.handle(event))
        taken += 1
    log.closed()
    assert log.join(JOIN_S)
    recorded = [
        entry.event["node"]
        for path in sorted(tmp_path.iterdir(), key=lambda path: int(path.name.split(".")[1].replace("jsonl", "0")))[
            ::-1
        ]
        for machine, entries in replayed(path)
        for entry in entries
    ]
    assert recorded == [f"node {number}" for number in range(taken)]


def test_a_start_goes_on_in_the_file_that_a_crash_left(tmp_path):
    fill(log_in(tmp_path), 3)
    path = tmp_path / "run.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    fill(log_in(tmp_path), 2)
    assert [len(entries) for _, entries in replayed(path)] == [2, 2]


def test_what_does_not_fit_into_memory_leaves_a_gap_and_a_new_opening(tmp_path):
    log, machine = log_in(tmp_path, waiting_bytes=1500), CountingMachine(1000)
    blocked = NodeJoined("x" * 2000, 1.0)
    log.opened(machine)
    log.took(machine, blocked, ())
    while not log.is_recording:  # until the thread has taken what waited
        log.took(machine, NodeJoined("left out", 1.0), ())
    event = NodeJoined("recorded", 1.0)
    log.took(machine, event, machine.handle(event))
    log.closed()
    assert log.join(JOIN_S)
    assert [[entry.event["node"] for entry in entries] for _, entries in replayed(tmp_path / "run.jsonl")] == [
        [],
        ["recorded"],
    ]


@pytest.mark.parametrize("place", ["/dev/full", "a file"])
def test_a_disk_error_ends_the_log_once_and_the_machine_goes_on(tmp_path, capsys, place):
    if place == "/dev/full":
        (tmp_path / "run.jsonl").symlink_to(place)
        folder = tmp_path
    else:
        folder = tmp_path / "file"
        folder.write_text("")
    machine = fill(log_in(folder), 500)
    assert len(machine.taken) == 500
    assert capsys.readouterr().out.count("the event log ends here; the run goes on") == 1


def test_a_value_that_cannot_be_written_ends_the_log_too(tmp_path, capsys):
    log, machine = log_in(tmp_path), CountingMachine(1000)
    log.opened(machine)
    log.took(machine, object(), ())
    log.took(machine, Tick(1.0), ())
    log.closed()
    assert log.join(JOIN_S)
    assert capsys.readouterr().out.count("an event cannot be written as JSON") == 1
    assert [len(entries) for _, entries in read(tmp_path / "run.jsonl")] == [0]


def test_only_the_newest_logs_are_kept(tmp_path):
    for name in ("a", "b", "c", "d"):
        fill(log_in(tmp_path, name, logs=2, file_bytes=100), 2)
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {"c", "d"}


def test_a_file_that_was_dropped_meanwhile_does_not_end_the_log(tmp_path):
    (tmp_path / "old.jsonl").symlink_to(tmp_path / "gone")  # it is listed, and is not there
    fill(log_in(tmp_path, "new", logs=1), 2)
    assert [len(entries) for _, entries in read(tmp_path / "new.jsonl")] == [2]
