"""Files that change under a coordinator that is down: what is damaged is asked for again, or named, and never used."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from covey.testing.federation import Federation
from tests.faults.chain import PATIENT
from tests.integration.specs import BIG, spec

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


def received(federation, run):
    found = query(
        federation, "SELECT node, group_number, parts FROM assignments WHERE run = ? AND verdict = 'received'", run
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
