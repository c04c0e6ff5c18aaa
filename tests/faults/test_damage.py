"""Files that change under a coordinator that is down: what is damaged is asked for again, or named, and never used."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from covey.testing.federation import Federation
from covey.testing.launch.processes import standing_still
from tests.faults.chain import PATIENT, REJOINS
from tests.integration.specs import BIG, async_spec, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(200)]
ROUNDS = 4


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("damage"), nodes=2) as made:
        yield made.start()


def text_of(name):
    few = {"training": "local_steps = 4", "extra": "[evaluation]\nevery = 10"}
    return spec(name, rounds=ROUNDS, policy=PATIENT, **few, **BIG)


def query(federation, text, *values):
    with sqlite3.connect(federation.coordinator_dir / "covey.db") as connection:
        found = connection.execute(text, values).fetchall()
    connection.close()
    return found


def flip(federation, digest):
    """Change one bit in the middle of a file; its size stays."""
    path: Path = federation.coordinator_dir / "files" / "artifacts" / digest
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def received(federation, run, verdict="received"):
    """Node, number and files of the run's updates with this verdict."""
    found = query(
        federation, "SELECT node, group_number, parts FROM assignments WHERE run = ? AND verdict = ?", run, verdict
    )
    return [(node, number, [part["digest"] for part in json.loads(parts)]) for node, number, parts in found]


def test_a_damaged_update_is_asked_for_again_and_a_damaged_model_is_named(federation):
    undisturbed = federation.wait(federation.submit(text_of("undisturbed")))["model_sha256"]
    run = federation.submit(text_of("damaged"))
    federation.wait_round(run, 1)
    federation.node(1).suspend()
    federation.until(lambda: bool(received(federation, run)), 60, "no update came in")
    federation.kill_coordinator()
    ((node, number, digests),) = received(federation, run)
    flip(federation, digests[0])
    federation.node(1).resume()
    federation.restart_coordinator()
    shown = federation.wait(run)
    assert (shown["state"], shown["model_sha256"]) == ("completed", undisturbed)
    events = [json.loads(d) for (d,) in query(federation, "SELECT detail FROM events WHERE kind = 'update-lost'")]
    assert [event["round"] for event in events] == [number]
    assert "damaged or missing" in events[0]["reason"]
    assert any(
        event["kind"] == "update-lost"
        for event in json.loads(
            federation.cli("node", "show", node, "--json", "--data-dir", federation.coordinator_dir)
        )["events"]
    )
    assert json.loads(federation.cli("run", "audit", run, "--json", "--data-dir", federation.coordinator_dir))["ok"]

    used = federation.submit(text_of("used"))
    federation.wait_round(used, 1)
    with standing_still([federation.worker_pids["coordinator"]]):
        federation.until(lambda: len(received(federation, used)) == 2, 60, "the round is not being aggregated")
        ((_, number, digests), _) = received(federation, used)
        flip(federation, digests[0])
    shown = federation.wait(used)
    assert (shown["state"], shown["model_sha256"]) == ("completed", undisturbed)
    assert [*lost(federation, used)] == [number]
    assert query(federation, "SELECT attempt FROM groups WHERE run = ? AND number = ?", used, number) == [(2,)]
    assert json.loads(federation.cli("run", "audit", used, "--json", "--data-dir", federation.coordinator_dir))["ok"]

    last = federation.submit(text_of("modelless"))
    federation.wait_round(last, 1)
    federation.kill_coordinator()
    ((digest,),) = query(
        federation, "SELECT digest FROM model_versions WHERE run = ? ORDER BY version DESC LIMIT 1", last
    )
    flip(federation, digest)
    federation.restart_coordinator()
    failed = federation.wait(last, states=("failed",))
    assert "is damaged or missing" in failed["reason"]
    assert "restore a backup" in failed["reason"]


def lost(federation, run):
    """The numbers of the run's updates of which an event says that they are lost, and why."""
    found = query(federation, "SELECT detail FROM events WHERE run = ? AND kind = 'update-lost'", run)
    return {event["round"]: event["reason"] for event in (json.loads(detail) for (detail,) in found)}


def test_an_asynchronous_run_goes_on_without_what_was_damaged(federation):
    """While updates wait for their decision, while one is being decided on, and, over a restart, while one is held."""
    slow = '[task]\nname = "synthetic"\noptions = { train_seconds = 0.2 }'
    text = async_spec("unordered", policy="buffered", options="k = 2", updates=40, rounds=REJOINS)
    text = text.replace('payload = "gradient"', 'payload = "delta"').replace('[task]\nname = "digits"', slow)
    run = federation.submit(text)
    federation.until(lambda: bool(received(federation, run, "held")), 60, "no update is held")
    with standing_still([federation.worker_pids["coordinator"]]):
        federation.until(lambda: len(received(federation, run)) == 2, 60, "nothing waits for its decision")
        waiting = received(federation, run)
        for _, _, digests in waiting:
            flip(federation, digests[0])
    numbers = {number for _, number, _ in waiting}
    federation.until(lambda: numbers <= lost(federation, run).keys(), 60, "the lost updates are not named")
    assert all(reason.startswith("lost: its files were damaged") for reason in lost(federation, run).values())

    federation.node(1).suspend()
    federation.until(lambda: bool(received(federation, run, "held")), 60, "no update is held")
    federation.kill_coordinator()
    federation.node(1).resume()
    held = received(federation, run, "held")[:1]
    for _, _, digests in [*received(federation, run), *held]:
        (federation.coordinator_dir / "files" / "artifacts" / digests[0]).unlink()
    federation.start_coordinator()
    shown = federation.wait(run, timeout_s=90)
    assert shown["updates_decided"] == 40
    assert {number for _, number, _ in held} <= lost(federation, run).keys()
    verdicts = {
        number: (verdict, reason)
        for number, verdict, reason in query(
            federation, "SELECT group_number, verdict, reason FROM assignments WHERE run = ?", run
        )
    }
    for number in [*numbers, *(number for _, number, _ in held)]:
        assert verdicts[number][0] == "rejected"
        assert verdicts[number][1].startswith("lost: ")
    assert json.loads(federation.cli("run", "audit", run, "--json", "--data-dir", federation.coordinator_dir))["ok"]
