"""What nodes share of their logs: kept in order, bounded whatever a node sends, and of those that take part only."""

import json
import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from covey import messages as msg
from covey.coordinator.admin.site_log import site_log_page
from covey.coordinator.nodes import site_logs
from covey.coordinator.nodes.site_logs import SiteLogDoor, SiteLogs
from covey.errors import NotFound


def lines(*texts):
    return [{"at": 1.0, "round": 1, "kind": "output", "text": text} for text in texts]


@pytest.fixture
def logs(tmp_path):
    return SiteLogs(tmp_path / "site-logs")


def texts(logs, run="r", node="ada", after=0):
    return [line["text"] for line in logs.page(run, node, after, 10_000).lines]


def test_lines_are_numbered_on_across_restarts_and_pages_go_on_where_one_ended(logs, tmp_path):
    logs.add("r", "ada", "none", [], 2)
    assert logs.page("r", "ada", 0, 10) == site_logs.Page("none")
    logs.add("r", "ada", "all", lines("one", "two"), 2)
    with (tmp_path / "site-logs" / "r" / "ada.jsonl").open("a") as file:
        file.write("{half a li\n")
    again = SiteLogs(tmp_path / "site-logs")
    again.add("r", "ada", "all", lines("three"), 2)
    page = again.page("r", "ada", 0, 2)
    assert (page.sharing, [line["text"] for line in page.lines]) == ("all", ["one", "two"])
    assert texts(again, after=page.lines[-1]["number"]) == ["three"]
    assert texts(again, node="bob") == []


def test_a_node_s_log_of_a_run_has_a_bounded_size_and_keeps_the_newest_and_what_is_shared(logs, tmp_path, monkeypatch):
    monkeypatch.setattr(site_logs, "NODE_BYTES", 4000)
    for number in range(200):
        logs.add("r", "ada", "failures", lines(f"line {number}"), 1)
    size = sum(path.stat().st_size for path in (tmp_path / "site-logs" / "r").iterdir())
    kept = texts(logs)
    assert 2000 < size <= 4000
    assert kept == [f"line {number}" for number in range(200 - len(kept), 200)]
    assert SiteLogs(tmp_path / "site-logs").page("r", "ada", 0, 1).sharing == "failures"


def test_the_oldest_runs_go_and_a_deleted_one_leaves_nothing(logs, tmp_path, monkeypatch):
    monkeypatch.setattr(site_logs, "MOST_RUNS", 3)
    for number in range(5):
        logs.add(f"r{number}", "ada", "all", lines("x"), 1)
    assert len(list((tmp_path / "site-logs").iterdir())) == 3
    assert logs.drop("r4") > 0
    logs.add("r4", "ada", "all", lines("anew"), 1)
    assert texts(logs, "r4") == ["anew"]


async def test_of_a_run_that_goes_on_or_was_just_written_nothing_goes(door, logs, tmp_path, monkeypatch):
    monkeypatch.setattr(site_logs, "MOST_RUNS", 3)
    await door.take("ada", sent("long ago", run="r"), 5.0)
    for number, run in enumerate(("r", "r0", "r1")):
        logs.add(run, "ada", "all", lines("x"), 1)
        os.utime(tmp_path / "site-logs" / run, (number, number))
    await door.take("ada", sent("at the end", run="old"), 5.0)
    assert (texts(logs, "r"), texts(logs, "r0"), texts(logs, "r1")) == (["long ago", "x"], [], ["x"])
    os.utime(tmp_path / "site-logs" / "old", (0, 0))
    logs.add("old", "ada", "all", lines("later"), 1)
    await door.take("bob", sent("once more", run="r"), 5.0)
    logs.add("r2", "ada", "all", lines("x"), 1, {"r"})
    assert (texts(logs, "r1"), texts(logs, "old")) == ([], ["at the end", "later"])


def test_a_disk_in_the_way_costs_lines_and_no_more(tmp_path):
    (tmp_path / "site-logs").write_text("no folder")
    logs = SiteLogs(tmp_path / "site-logs")
    logs.add("r", "ada", "all", lines("lost"), 1)
    (tmp_path / "site-logs").unlink()
    logs.add("r", "ada", "all", lines("there"), 1)
    assert texts(logs) == ["there"]


class Store:
    """A record with one run that has ended."""

    def run(self, run):
        if run not in ("old", "name-of-old"):
            raise NotFound(run)
        return SimpleNamespace(run="old", ended_at=1000.0, roster=("ada",))


class Thread:
    store = Store()

    async def call(self, method, *arguments):
        return method(*arguments)


@pytest.fixture
def door(logs):
    active = {"r": SimpleNamespace(run=SimpleNamespace(roster=("ada", "bob")))}
    return SiteLogDoor(logs, cast(Any, SimpleNamespace(of=active.get, active=active)), cast(Any, Thread()))


def sent(*texts, run="r", sharing="all", kind="output", at=1.0):
    return msg.SiteLog(run, sharing, tuple(msg.SiteLogLine(at, 1, kind, text) for text in texts))


async def test_a_hostile_node_writes_its_own_short_printable_lines_at_a_bounded_rate(door, logs, tmp_path):
    await door.take("eve", sent("not of the run"), 5.0)
    await door.take("ada", sent("x", run="../../keys"), 5.0)
    await door.take("ada", sent("x", sharing="everything"), 5.0)
    assert not (tmp_path / "site-logs").exists()
    await door.take("ada", sent("\x1b]0;owned\x07\nnext", "y" * 100_000, kind="commit", at=float("nan")), 5.0)
    first, second = logs.page("r", "ada", 0, 10).lines
    assert (first["text"], first["kind"], first["at"]) == ("\\x1b]0;owned\\x07 next", "node", 5.0)
    assert len(second["text"]) == site_logs.MAX_LINE
    for _ in range(20):
        await door.take("ada", sent(*["z" * 900] * 500), 5.0)
    written = sum(path.stat().st_size for path in (tmp_path / "site-logs" / "r").iterdir())
    assert written < site_logs.PACE[0] + site_logs.MAX_LINES * 1200
    await door.take("bob", sent("of bob"), 5.0)
    assert texts(logs, node="bob") == ["of bob"]


async def test_the_last_lines_of_a_run_are_taken_when_it_has_just_ended_under_its_id(door, logs):
    await door.take("ada", sent("last", run="old"), 1000.0 + site_logs.LATE_S)
    await door.take("ada", sent("by its name", run="name-of-old"), 1001.0)
    await door.take("ada", sent("too late", run="old"), 1001.0 + site_logs.LATE_S)
    assert texts(logs, "old") == ["last"]


def test_pages_say_who_takes_part_and_fit_into_a_message(logs):
    run = cast(Any, SimpleNamespace(run="r", name="digits", roster=("ada",)))
    logs.add("r", "ada", "all", lines(*["w" * 1000] * 250), 1)
    page = site_log_page(logs, run, "ada", 0)
    assert (page.sharing, len(page.lines), page.next) == ("all", 250, 0)
    assert json.loads(json.dumps(page.lines[0].text)) == "w" * 1000
    with pytest.raises(NotFound, match="no node 'eve' takes part in run digits"):
        site_log_page(logs, run, "eve", 0)
