"""A federation's authority, identities that it certified, and a coordinator's record of runs."""

import hashlib
from dataclasses import replace

import pytest

from covey.artifact import artifact_of
from covey.coordinator.config import sqlite_url
from covey.storage.record.contract import NodeRecord, RoundRecord, RunRecord, TokenRecord, UpdateRecord, VersionRecord
from covey.storage.sql.store import open_store
from covey.testing.store import records as make
from covey.wire.identities.authority import Authority
from covey.wire.identities.identity import Identity, signing_request, tls_key_in

COORDINATOR_KEY = bytes(range(32))
SPEC = '{"evaluation":{"goal":"max","metric":"accuracy"},"rounds":{"count":20}}'
"""As much of a specification as readers of a record look at."""


@pytest.fixture
def authority(tmp_path):
    return Authority.open(tmp_path / "authority")


@pytest.fixture
def identity(tmp_path, authority):
    """Makes complete identity folders: `identity(name, role, days=..., by=..., certificate=...)`."""

    def make(name="alpha", role="node", *, days=365, by=authority, certificate=None):
        folder = tmp_path / f"{role}-{name}-{by.federation[:8]}"
        signing_request(folder, name)
        pem = certificate or by.issue(name, role, tls_key_in(folder / "tls.key").public_key(), days).pem
        Identity.write(
            folder,
            name=name,
            role=role,
            federation=by.federation,
            server="127.0.0.1:7400",
            coordinator_key=COORDINATOR_KEY,
            certificate=pem,
            authority=by.pem,
        )
        return Identity.load(folder)

    return make


class Recorder:
    """Writes runs into a coordinator's record, as the coordinator does; statements are not real."""

    NODES = ("ada", "bob")

    def __init__(self, data_dir):
        self.data_dir, self.store = data_dir, open_store(sqlite_url(data_dir))
        self.runs = 0

    def enrol(self, *names):
        for name in names:
            key_id = hashlib.sha256(name.encode()).hexdigest()[:32]
            self.store.add_token(TokenRecord(f"secret of {name}", name, "node", 1.0, 2.0))
            record = NodeRecord(name, "node", "active", 1.0, signing_key=name.encode().ljust(32), key_id=key_id)
            self.store.redeem_token(f"secret of {name}", key_id, b"", record)

    def run(self, run, rounds=0, nodes=NODES):
        """A running run with so many committed rounds; in order of submission."""
        self.runs += 1
        self.store.add_run(RunRecord(run, f"name-of-{run}", "rounds", SPEC, 7, "queued", "", 100.0 + self.runs))
        self.store.start_run(run, nodes, 0, "[]", self.version(run, 0), 200.0)
        for number in range(1, rounds + 1):
            self.open(run, number, nodes)
            self.commit(run, number, nodes)

    def version(self, run, number, **values):
        name = f"{run} version {number}"
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        statement = b"" if number == 0 else f"commit of {name}".encode()
        return VersionRecord(
            run, number, sha256, artifact_of([name.encode()]), 300.0 + number, statement=statement, **values
        )

    def open(self, run, number, nodes=NODES):
        self.store.open_round(RoundRecord(run, number, 1, "collecting", tuple(nodes), number - 1, 300.0, 300.0))

    def commit(self, run, number, nodes=NODES, measured=None, **values):
        for node in nodes:
            name = f"{run} round {number} of {node}"
            key_id = hashlib.sha256(node.encode()).hexdigest()[:32]
            digest = hashlib.sha256(name.encode()).hexdigest()
            update = UpdateRecord(
                run,
                number,
                node,
                "received",
                digest=digest,
                statement=name.encode(),
                key_id=key_id,
                received_at=301.0,
                metrics=measured or {},
            )
            self.store.record_update(update)
        self.store.begin_aggregation(run, number)
        verdicts = [UpdateRecord(run, number, node, "accepted", share=1 / len(nodes)) for node in nodes]
        version = self.version(run, number, **values)
        step = make.commit_step_of(self.store, version, verdicts)
        self.store.commit_step(replace(step, decided_at=302.0), verdicts, version, bytes_received=10, bytes_sent=20)


@pytest.fixture
def recorder(tmp_path):
    """An empty record of a coordinator that is not running; two nodes are enrolled."""
    folder = tmp_path / "coordinator"
    folder.mkdir()
    made = Recorder(folder)
    made.enrol(*made.NODES)
    yield made
    made.store.close()
