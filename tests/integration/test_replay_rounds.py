"""Synchronous runs on real daemons, made again from their record alone; and what is found when it was changed."""

from __future__ import annotations

import json
import sqlite3

import pytest

from covey.testing.federation import Federation, FederationError
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
NODES, ROUNDS = 5, 3
KEEP = "[keep]\nupdates = 100000\n"
RUNS = {
    "mean-nesterov": '[server_optimizer]\nname = "nesterov"\n',
    "krum-mixed": """
[aggregation]
name = "krum"
options = { f = 1 }
[[aggregation.pre]]
name = "nearest-neighbour-mixing"
options = { f = 1 }
""",
    "scaffold": '[method]\nname = "scaffold"\n[weights]\nby = "equal"\n',
}
EDITS = {
    "UPDATE assignments SET weight = weight + 1 WHERE run = ? AND group_number = 2": (
        "round 2: the signed weight of the update of"
    ),
    "UPDATE assignments SET share = share / 2 WHERE run = ? AND group_number = 1": "round 1: the verdicts came out as",
    "UPDATE model_versions SET model_sha256 = 'other' WHERE run = ? AND version = 3": "round 3: the model came out as",
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("replay"), nodes=NODES) as made:
        yield made.start()


@pytest.fixture(scope="module")
def ended(federation):
    """Name to the run, which has ended."""
    texts = {name: spec(name, rounds=ROUNDS, min_nodes=NODES, extra=f"{KEEP}{extra}") for name, extra in RUNS.items()}
    runs = {name: federation.submit(text) for name, text in texts.items()}
    for run in runs.values():
        federation.wait(run, timeout_s=120)
    return runs


@pytest.mark.parametrize("name", RUNS)
def test_a_run_comes_out_again_from_its_record_alone(federation, ended, name):
    shown = federation.show(ended[name])
    where = ["--data-dir", federation.coordinator_dir]
    replayed = json.loads(federation.cli("run", "replay", ended[name], "--json", *where))
    assert (replayed["ok"], replayed["problems"]) == (True, [])
    assert (replayed["decisions"], replayed["versions"]) == (ROUNDS, ROUNDS)
    assert replayed["model_sha256"] == shown["model_sha256"]


@pytest.fixture
def copied(federation, ended, tmp_path):
    """A backup of the coordinator's data directory, to be changed."""
    folder = tmp_path / "copy"
    federation.cli("coordinator", "backup", "--to", folder, "--data-dir", federation.coordinator_dir)
    return folder


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_row_is_found(copied, federation, ended, edit):
    with sqlite3.connect(copied / "covey.db") as database:
        assert database.execute(edit, (ended["mean-nesterov"],)).rowcount > 0
    printed = federation.cli("run", "replay", ended["mean-nesterov"], "--data-dir", copied, check=False)
    assert EDITS[edit] in printed
    with pytest.raises(FederationError, match="does not come out as recorded"):
        federation.cli("run", "replay", ended["mean-nesterov"], "--data-dir", copied)


def test_an_edited_file_is_found(copied, federation, ended):
    with sqlite3.connect(copied / "covey.db") as database:
        row = "SELECT parts FROM assignments WHERE run = ? AND group_number = 2 ORDER BY node"
        (parts,) = database.execute(row, (ended["scaffold"],)).fetchone()
    digest = json.loads(parts)[0]["digest"]
    path = copied / "files" / "artifacts" / digest
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    printed = federation.cli("run", "replay", ended["scaffold"], "--data-dir", copied, check=False)
    assert f"is recorded as {digest}" in printed


def test_updates_that_were_not_kept_are_asked_for(federation):
    run = federation.submit(spec("forgets", rounds=ROUNDS, min_nodes=NODES))
    federation.wait(run)
    with pytest.raises(FederationError, match=r"submitted with \[keep\] updates = as many rounds"):
        federation.cli("run", "replay", run, "--data-dir", federation.coordinator_dir)
