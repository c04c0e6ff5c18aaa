"""A record of three runs, signed and sealed as a coordinator does it: of rounds, asynchronous, and one that goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from covey.client.audit.rows import AuditedRun
from covey.client.audit.verify import AuditReport, examine_record
from covey.coordinator.keys.sealer import RecordSealer
from covey.storage.record.contract import (
    EventRecord,
    GossipMemberRecord,
    NodeRecord,
    RunRecord,
    StepRecord,
    Store,
    UpdateRecord,
    Verdict,
    VersionRecord,
    step_verdict,
)
from covey.storage.sql.store import SqlStore, open_store
from covey.testing.store import records as make
from covey.wire.identities.signing import CommitStatement, CommitVerdict, PartStatement, SigningKey, UpdateStatement

FEDERATION = "fe" * 16
COORDINATOR = SigningKey.generate()
NODES = ("a", "b", "c")
KEYS = {name: SigningKey.generate() for name in NODES}
SYNC, ASYNC, GOING = "5afe01", "5afe02", "5afe03"
MEAN = {"method": {"name": "none"}, "aggregation": {"name": "mean", "options": {}, "pre": []}}


@dataclass
class Builder:
    """Writes one run as its coordinator does."""

    store: Store
    run: str
    newest: VersionRecord | None = None

    def submit(self, mode: str) -> None:
        """Submit it, and start it with version 0."""
        spec = json.dumps({"name": f"run {self.run}", "mode": mode, "seed": 7, **MEAN}, sort_keys=True)
        record = RunRecord(self.run, f"run {self.run}", mode, spec, 7, "queued", "", 1000.25)
        self.store.add_run(record)
        self.store.add_event(EventRecord(1000.5, "run-submitted", self.run, detail={"by": "admin"}))
        self.newest = make.version_record(self.run, 0, statement=b"", signature=b"")
        self.store.start_run(self.run, NODES[:2], 3, make.LAYOUT, self.newest, 1001.0)
        self.store.extend_roster(self.run, NODES, 3)

    def base(self) -> VersionRecord:
        """The newest version."""
        assert self.newest is not None
        return self.newest

    def update(self, number: int, node: str, base: VersionRecord | None = None) -> UpdateRecord:
        """A node's update, recorded."""
        base, key = base or self.base(), KEYS[node]
        made = make.update_record(self.run, number, node, weight=3.0)
        parts = tuple(PartStatement(p.name, p.codec, {}, "1a" * 32, p.artifact.digest, 40) for p in made.parts)
        metrics = {"loss": (1.5, 10.0)}
        statement = UpdateStatement(
            FEDERATION, self.run, number, node, key.key_id, base.model_sha256, parts, 3.0, metrics
        ).to_bytes()
        signed = replace(
            made,
            statement=statement,
            signature=key.sign(statement),
            digest=hashlib.sha256(statement).hexdigest(),
            key_id=key.key_id,
            base_sha256=base.model_sha256,
        )
        self.store.record_update(signed)
        return signed

    def version(self, number: int, judged: Sequence[UpdateRecord], *, whole: bool) -> VersionRecord:
        """The next version, with its statement; `number`: the round that it is of."""
        base = self.base()
        made = make.version_record(self.run, base.version + 1, parent_sha256=base.model_sha256)
        statement = CommitStatement(
            federation=FEDERATION,
            run=self.run,
            round=number,
            version=made.version,
            model_sha256=made.model_sha256,
            artifact=made.artifact.digest,
            parent=hashlib.sha256(base.statement).hexdigest() if base.statement else "",
            verdicts=tuple(
                CommitVerdict(u.node, u.digest, u.verdict, u.reason, u.share, 0 if whole else u.round) for u in judged
            ),
            state=tuple(part.artifact.digest for part in made.state),
            covey="commit/2",
        ).to_bytes()
        self.newest = replace(made, statement=statement, signature=COORDINATOR.sign(statement))
        return self.newest

    def round(self, number: int) -> None:
        """A round: one update is accepted, one rejected, and a node declines."""
        self.store.open_round(make.round_record(self.run, number, invited=NODES))
        first, second = self.update(number, "a"), self.update(number, "b")
        self.store.record_outcome(make.outcome_record(self.run, number, "c", "declined", "no data"))
        self.store.begin_aggregation(self.run, number)
        numbers = {"distance": 0.25, "norm": float("inf")}
        judged = [
            replace(first, verdict="accepted", share=1.0, numbers=numbers),
            replace(second, verdict="rejected", reason="too far", numbers={"distance": 9.0}),
        ]
        version = self.version(number, judged, whole=True)
        step = make.commit_step_of(self.store, version, judged)
        self.store.commit_step(step, judged, version, bytes_received=11 * number, bytes_sent=22)
        self.store.record_metrics(self.run, version.version, {"accuracy": 0.5 + number / 10}, evaluated=True)

    def decision(self, number: int, node: str, verdict: Verdict, decision: int) -> None:
        """An assignment of an asynchronous run, and the decision on its update."""
        base = self.base()
        self.store.open_round(make.round_record(self.run, number, invited=(node,), base_version=base.version))
        update = self.update(number, node, base)
        accepted = verdict == "accepted"
        judged = replace(update, verdict=verdict, share=0.5 if accepted else 0.0, numbers={"staleness": 0.0})
        version = self.version(number, [judged], whole=False) if accepted else None
        state = json.dumps({"seen": decision})
        digest = hashlib.sha256(state.encode()).hexdigest()
        step = StepRecord(
            run=self.run,
            number=decision,
            cause=((number, 1),),
            newest=base.version,
            version=None if version is None else version.version,
            roster=3,
            verdicts=(step_verdict(judged),),
            decided_at=4000.0 + decision,
            state=state,
            state_sha256=digest,
            pinned_updates=(number,),
            pinned_versions=(base.version,),
        )
        self.store.commit_step(step, [judged], version, bytes_received=5, bytes_sent=6)

    def end(self, state: str, reason: str = "") -> None:
        """The end of the run."""
        self.store.finish_run(self.run, state, reason, 5000.0)  # type: ignore[arg-type]
        self.store.add_event(EventRecord(5000.5, "run-finished", self.run, "a", {"state": state}))


def write_record(url: str) -> None:
    """Write all three runs."""
    store = open_store(url)
    store.acquire_lease("test")
    store.seal_with(RecordSealer(FEDERATION, COORDINATOR))
    for name, key in KEYS.items():
        make.enrol(store, NodeRecord(name, "node", "active", 10.0, signing_key=key.public_bytes, key_id=key.key_id))
        store.add_event(EventRecord(11.0, "enrolled", node=name, detail={"role": "node"}))
    one = Builder(store, SYNC)
    one.submit("rounds")
    store.set_gossip_members([GossipMemberRecord(SYNC, node, f"{node}:7410", make.sha256(node)) for node in NODES])
    store.set_gossip_members([GossipMemberRecord(SYNC, "b", "b:7411", make.sha256("b"), "lost", "gone")])
    one.store.set_reason(SYNC, "waiting for c")
    for number in (1, 2, 3):
        one.round(number)
    store.open_round(make.round_record(SYNC, 4, invited=NODES))
    one.end("stopped", "stopped by admin")
    two = Builder(store, ASYNC)
    two.submit("async")
    store.set_gossip_members([GossipMemberRecord(ASYNC, node, f"{node}:7410", make.sha256(node)) for node in NODES])
    two.decision(1, "a", "accepted", 1)
    two.decision(2, "b", "rejected", 2)
    two.decision(3, "c", "accepted", 3)
    store.open_round(make.round_record(ASYNC, 4, invited=("a",), base_version=2))
    store.close_round(make.outcome_record(ASYNC, 4, "a", "lost", "gone"))
    two.end("completed")
    three = Builder(store, GOING)
    three.submit("rounds")
    three.round(1)
    store.open_round(make.round_record(GOING, 2, invited=NODES))
    three.update(2, "a")
    store.prune(SYNC, versions=1, updates=1, metric="accuracy", goal="max")
    store.close()


def audit(path: Path | str, run: str, receipts: Sequence[bytes] = ()) -> AuditReport:
    """The audit of a run in a SQLite file (or of a store's URL), as a client makes it."""
    url = path if isinstance(path, str) else f"sqlite:///{path}"
    store: SqlStore = open_store(url, migrate=False)
    try:
        audited = AuditedRun(COORDINATOR.public_bytes)
        for row in store.audited_rows(run):
            audited.add(row.table, json.loads(json.dumps(row.values)))
    finally:
        store.close()
    return examine_record(audited, FEDERATION, COORDINATOR.public_bytes, receipts)
