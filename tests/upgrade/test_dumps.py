"""What an older Covey left behind in the middle of a run goes on here, and nothing that was finished is made again."""

from __future__ import annotations

import json

import pytest

from covey.testing.federation import Federation
from tests.upgrade.dumps import all_dumps, use_postgresql

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
DUMPS = all_dumps()
WAIT_S = 120.0


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request):
    """The URL of an empty database; None: the dump's own SQLite record."""
    return request.getfixturevalue("empty_postgres") if request.param == "postgresql" else None


@pytest.fixture
def federation(tmp_path, dump, store):
    """The dump's coordinator and nodes under today's code, from where they were killed."""
    root = dump.unpack(tmp_path / "federation")
    if store:
        use_postgresql(root, store)
    with Federation(root, nodes=dump.facts["nodes"], store_url=store) as made:
        made.start_coordinator()
        for index in range(dump.facts["nodes"]):
            made.start_node(index, options=["--server", made.coordinator_address])
        yield made


def asked(federation, *command):
    """What a command prints about this federation's coordinator with --json."""
    return json.loads(federation.cli(*command, "--json", "--data-dir", federation.coordinator_dir))


def stored(federation, *command):
    """The same, of a command that reads the record itself."""
    where = ["--store", federation.store_url] if federation.store_url else []
    return json.loads(federation.cli(*command, "--json", "--data-dir", federation.coordinator_dir, *where))


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.id)
def test_a_run_goes_on_from_what_an_older_covey_left(dump, federation):
    facts, run = dump.facts, dump.facts["run"]
    federation.wait(run, timeout_s=WAIT_S)
    shown = federation.show(run)
    check_final(shown, facts["final"])
    check_rounds(federation.rounds(run), facts)
    check_nothing_made_again(federation, facts)
    check_record(federation, facts, shown)


def check_final(shown, final):
    if shown["mode"] == "async":  # its models depend on the order of arrival: they are replayed instead
        assert shown["updates_decided"] == final["updates_decided"]
        assert shown["model_version"] > 0
        return
    assert shown["model_sha256"] == final["model_sha256"]
    assert shown["rounds_committed"] == final["rounds_committed"]
    assert shown["metrics"] == pytest.approx(final["metrics"])


def check_rounds(rounds, facts):
    if facts["final"]["mode"] == "async":
        arrived = sorted((one for one in rounds if one["arrival"]), key=lambda one: one["arrival"])
        assert [one["arrival"] for one in arrived] == list(range(1, len(arrived) + 1))
        decided = facts["final"]["updates_decided"]
        assert [one["state"] for one in arrived[:decided]] == ["decided"] * decided
        return
    expected = [(number, "committed", 1, facts["nodes"]) for number in range(1, facts["final"]["rounds_committed"] + 1)]
    assert [(one["round"], one["state"], one["attempt"], one["accepted"]) for one in rounds] == expected


def check_nothing_made_again(federation, facts):
    """What nodes had finished is what the record has of those rounds, and they did not train for it."""
    for name, update in facts["undelivered"].items():
        recorded = federation.admin.round(facts["run"], update["round"])["updates"]
        assert [one["digest"] for one in recorded if one["node"] == name] == [update["digest"]]
        log = (federation.root / "logs" / f"{name}.log").read_text().splitlines()
        own = [line for line in log if f"run={facts['run']}" in line and f"round={update['round']}" in line.split()]
        assert any("update delivered" in line for line in own)
        assert not any(" training " in line for line in own)


def check_record(federation, facts, shown):
    """The old part and the new part of each chain, every file, and every decision."""
    for run in (facts["run"], *(earlier["run"] for earlier in [facts["earlier"]] if earlier)):
        report = asked(federation, "run", "audit", run)
        assert (report["ok"], report["problems"]) == (True, [])
        assert "from a version that sealed no rows" in report["notes"][0]
    if facts["earlier"]:
        assert federation.show(facts["earlier"]["run"])["model_sha256"] == shown["model_sha256"]
    assert stored(federation, "store", "check")["problems"] == []
    if facts["final"]["mode"] == "async":
        replayed = stored(federation, "run", "replay", facts["run"])
        assert (replayed["ok"], replayed["problems"]) == (True, [])
        assert replayed["decisions"] == facts["final"]["updates_decided"]
        assert (replayed["versions"], replayed["model_sha256"]) == (shown["model_version"], shown["model_sha256"])


def test_the_dumps_hold_what_they_are_kept_for():
    """A run in every phase, nodes with undelivered updates, and private ones among them."""
    facts = [dump.facts for dump in DUMPS]
    phases = {one.partition(" ")[0] for found in facts for one in found["stopped"]["open_rounds"]}
    assert phases >= {"collecting", "aggregating"}
    synchronous = [found for found in facts if found["final"]["mode"] == "rounds"]
    last = [found["final"]["rounds_committed"] for found in synchronous]
    assert any(found["stopped"]["rounds_committed"] == n for found, n in zip(synchronous, last, strict=True))
    assert any(found["stopped"]["held"] for found in facts)
    waiting = [update for found in facts for update in found["undelivered"].values()]
    assert {update["private"] for update in waiting} == {True, False}
