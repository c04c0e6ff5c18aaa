"""What the records of a gossip run's nodes say: how far each is, whether all mass is there, the consensus model.

A record is read where it lies, in a node's data directory, also while the node runs. What a node says of its mass, its
account, is a small JSON file too, so that organisations that share no disk can compare theirs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from covey.artifact import Artifact
from covey.client.gossip_receipts import checked_farewells, checked_proofs, checked_receipts, receipt_to_json
from covey.errors import CoveyError, IdentityError, LedgerError, LimitExceeded, NotFound, SpecError
from covey.gossip.audit import MassAudit, audit
from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.mass import ONE, TOKEN, weight
from covey.gossip.protocols.encoding import is_encoded
from covey.gossip.protocols.runs import body_of, policy_of, protocol_of
from covey.gossip.push_sum.exchange import UNANSWERED_S
from covey.gossip.push_sum.machine import PushSum
from covey.gossip.receipts import Excess, Overdraft, Proof, SignedMass, overdrafts
from covey.node.gossip.folders import joins_with, newest
from covey.node.gossip.ports import Saved
from covey.node.gossip.receipts import Kept
from covey.node.gossip.record.database import open_record
from covey.node.gossip.record.leavers import FOLDER as LEAVERS
from covey.node.gossip.record.leavers import read_leavers
from covey.node.gossip.record.now import Now, read_now
from covey.node.gossip.record.proofs import FOLDER as PROOFS
from covey.node.gossip.record.proofs import judged, proof_to_json, read_proofs, signed_to_json
from covey.node.gossip.record.reader import (
    RunFacts,
    machine_of,
    read_filters,
    read_models,
    read_receipts,
    read_saved,
    require_facts,
    rows_of,
)
from covey.node.gossip.record.rows import peers_by_now
from covey.node.gossip.record.schema import MetricRow, PeerRow, SnapshotRow, StepRow
from covey.spec import GossipSpec, parse_data, parse_json
from covey.wire.mass_receipts import MassStatement

SILENT_S = 20.0
"""A process that said nothing for so long was killed, or stands still."""
FINAL = ("completed", "left")
"""How a node's part ends that gives nothing any more."""


@dataclass(frozen=True)
class NodeState:
    """One node's part in a run, as its record has it.

    Attributes:
        facts: The run.
        machine: The node's machine.
        spec: The specification.
        model: The file of its newest model that is on record; None: it published nothing yet.
        model_sha256: Of that model.
        trained_s: Seconds of training since the start of the process that published last.
        blocked_s: Seconds between trainings, likewise.
        metrics: Of the newest training.
        peers: What it knew of peers at its newest publication, name, incarnation, state and step of each; and who is
            out by now.
    """

    facts: RunFacts
    machine: PushSum
    spec: GossipSpec
    model: Path | None
    model_sha256: str
    trained_s: float
    blocked_s: float
    metrics: Mapping[str, float]
    peers: Sequence[Mapping[str, Any]]
    receipts: Sequence[Kept] = ()
    """What peers signed about their edges with it."""
    published: Mapping[int, tuple[Path, int]] = field(default_factory=dict)
    """Models of published steps that are kept, by step, and the units that the node had then: those that stay
    (`[gossip] keep_every`), and those that peers need yet, but not where bodies are no models."""
    proofs: Sequence[Proof] = ()
    """Of nodes that gave what cannot be, as they signed it themselves; each was checked when it came."""
    farewells: Sequence[SignedMass] = ()
    """Of nodes that left, as they signed them."""
    filters: tuple[str, ...] = ()
    """Of its site, that its newest training has passed, with their versions."""
    now: Now | None = None
    """What its process says of itself; None: there is none, or it said nothing for `SILENT_S`."""

    @property
    def has_mass(self) -> bool:
        """Whether its mass says for how much its model counts; else receivers weigh."""
        return self.machine.policy.weighs == "mass"

    @property
    def why_it_waits(self) -> list[str]:
        """What its process knows of peers that it may wait for: batches under way, who shows no sign of life."""
        return list(_reasons(self.now)) if self.now is not None else []

    @property
    def unanswered(self) -> list[str]:
        """Batches that peers do not acknowledge for so long that the node goes on without their answer."""
        return list(_under_way(self.now, UNANSWERED_S)) if self.now is not None else []

    @property
    def ledger(self) -> Ledger:
        """Its account."""
        return self.machine.exchange.ledger


@contextmanager
def _opened(folder: Path) -> Iterator[Engine]:
    engine = open_record(folder)
    try:
        yield engine
    finally:
        engine.dispose()


def read_node(data_dir: Path, run: str | None = None) -> NodeState:
    """What a node's record says of a run.

    Args:
        data_dir: The node's.
        run: The run's name; None: the only one that there is.

    Raises:
        NotFound: There is no such run, or it is not said which.
        StoreError: The record cannot be read.
    """
    folder = newest(data_dir, run)
    with _opened(folder) as engine:
        facts, saved = require_facts(engine), read_saved(engine)
        spec = parse_json(facts.spec)
        if not isinstance(spec, GossipSpec):
            raise SpecError("the record is of a run of another mode")
        steps, snapshot = rows_of(engine, StepRow), rows_of(engine, SnapshotRow)
        last = steps[-1] if steps else {}
        machine = machine_of(facts, policy_of(spec.gossip, len(facts.peers), allow_path=True), saved)
        metrics = {row["name"]: row["value"] for row in rows_of(engine, MetricRow) if row["step"] == last.get("step")}
        model = saved.snapshot.model if saved.snapshot is not None else None
        return NodeState(
            facts=facts,
            machine=machine,
            spec=spec,
            model=_path(folder, model) if model is not None else None,
            model_sha256=snapshot[0]["model_sha256"] if snapshot else "",
            trained_s=last.get("trained_s", 0.0),
            blocked_s=last.get("blocked_s", 0.0),
            metrics=metrics,
            peers=peers_by_now(rows_of(engine, PeerRow), machine.exchange),
            receipts=read_receipts(engine, facts.me),
            published=_published(folder, spec, saved, steps)
            | {step: (_path(folder, model), units) for step, (model, units) in read_models(engine).items()},
            proofs=read_proofs(folder.parent / PROOFS),
            farewells=read_leavers(folder.parent / LEAVERS),
            filters=read_filters(engine),
            now=_now(folder),
        )


def _published(
    folder: Path, spec: GossipSpec, saved: Saved[Artifact], steps: Sequence[Mapping[str, Any]]
) -> dict[int, tuple[Path, int]]:
    units = {row["step"]: int(row["live"]) for row in steps}
    if saved.snapshot is None or is_encoded(spec) or body_of(spec, allow_path=True):
        return {}
    return {step: (_path(folder, body), units[step]) for step, body in saved.snapshot.bodies.items() if step in units}


def _under_way(now: Now, at_least_s: float = 0.0) -> Iterator[str]:
    at = time.time()
    for batch in now.under_way:
        tries = f", {batch.tries} tries" if batch.tries > 1 else ""
        error = f": {batch.error}" if batch.error else ""
        if (seconds := max(0.0, at - batch.since)) >= at_least_s:
            yield f"batch {batch.sequence} to {batch.peer} is under way for {seconds:.0f} s{tries}{error}"


def _reasons(now: Now) -> Iterator[str]:
    away = {str(row["peer"]) for row in now.peers if row["state"] == "away"}
    yield from _under_way(now)
    for name in sorted(away):
        why = f", and cannot be called: {now.troubles[name]}" if name in now.troubles else ""
        yield f"{name} shows no sign of life{why}"
    for name in sorted(now.troubles.keys() - away):
        yield f"{name} cannot be called: {now.troubles[name]}"


def _now(folder: Path) -> Now | None:
    newest_words = read_now(folder)
    return newest_words[0] if newest_words is not None and newest_words[1] < SILENT_S else None


def _path(folder: Path, model: Artifact) -> Path:
    return folder / "files" / "artifacts" / model.digest


def silent_receivers(node: NodeState) -> list[Incarnation]:
    """The peers that show no sign of life, and have not acknowledged a batch: for one of them a leaver stays.

    Empty where the node does not run; where receivers weigh, nobody stays for that.
    """
    rows = node.now.peers if node.now is not None and node.has_mass else ()
    away = {Incarnation(row["peer"], row["incarnation"]) for row in rows if row["state"] == "away"}
    return sorted(away & node.machine.exchange.published.keys())


# -- accounts --------------------------------------------------------------------------------------------------------


def account_of(node: NodeState) -> dict[str, Any]:
    """A node's account as JSON; mass in units of 2 ** -52."""
    ledger, me = node.ledger, node.facts.me
    return {
        "run": node.facts.name,
        "node": me.node,
        "incarnation": me.number,
        "weighs": node.machine.policy.weighs,
        "minted": ledger.minted,
        "joins": joins_with(node.spec),
        "live": ledger.live,
        "lost": ledger.lost,
        "evicted": [[peer.node, peer.number] for peer in sorted(ledger.evicted)],
        "edges": [
            _edge(peer, ledger.out.get(peer, OutEdge()), ledger.into.get(peer, InEdge()))
            for peer in sorted(ledger.out.keys() | ledger.into.keys())
        ],
        "nodes": sorted(peer.node for peer in node.facts.peers),
        "ended": node.facts.ended,
        "receipts": [receipt_to_json(kept) for kept in node.receipts],
        "proofs": [proof_to_json(proof) for proof in node.proofs],
        "farewells": [signed_to_json(signed) for signed in node.farewells],
    }


def facts_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What an account says of the run's specification: who says what a model counts for, and what one joins with.

    Args:
        spec: As data. Of a protocol that is not installed here nothing is said.
    """
    try:
        known = parse_data(spec)
        if isinstance(known, GossipSpec):
            return {"weighs": protocol_of(known.gossip).weighs, "joins": joins_with(known)}
    except CoveyError:
        pass
    return {}


def proven(node: NodeState) -> Iterator[str]:
    """What others proved to a node of its peers, in words; what it says of them itself is not repeated."""
    exchange = node.machine.exchange
    most = exchange.ever_minted if node.has_mass else TOKEN
    for proof in node.proofs:
        with suppress(IdentityError, LimitExceeded):  # with more mass than when it came it may prove nothing
            excess = judged(proof, lambda signed: MassStatement.from_bytes(signed.statement).receipt, most)
            if excess.who not in exchange.contradictions:
                yield str(excess)


def _edge(peer: Incarnation, out: OutEdge, into: InEdge) -> dict[str, Any]:
    given = {"sent": out.sent, "sent_batches": out.sequence, "waiting": out.waiting, "reclaimed": out.reclaimed}
    return {
        "peer": peer.node,
        "incarnation": peer.number,
        **given,
        "applied": into.applied,
        "applied_batches": into.sequence,
    }


def _ledger_from(account: Mapping[str, Any]) -> tuple[Incarnation, Ledger]:
    """Raises LedgerError where it is no account."""
    try:
        me = Incarnation(str(account["node"]), int(account["incarnation"]))
        ledger = Ledger(int(account["live"]), int(account["minted"]), int(account["lost"]))
        ledger.evicted = {Incarnation(str(node), int(number)) for node, number in account["evicted"]}
        for edge in account["edges"]:
            peer = Incarnation(str(edge["peer"]), int(edge["incarnation"]))
            sent, batches = int(edge["sent"]), int(edge["sent_batches"])
            ledger.out[peer] = OutEdge(sent, batches, int(edge["waiting"]), int(edge["reclaimed"]))
            ledger.into[peer] = InEdge(int(edge["applied"]), int(edge["applied_batches"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"this is no account of a node: {error!r}") from error
    return me, ledger


def read_account(source: Path, run: str | None = None) -> Mapping[str, Any]:
    """An account: of a node's data directory, or a JSON file with one (`covey gossip status --json` prints it too).

    Raises:
        LedgerError: The file has none.
        NotFound: As `read_node`.
    """
    if source.is_dir():
        return account_of(read_node(source, run))
    try:
        parsed = json.loads(source.read_text())
    except FileNotFoundError:
        raise NotFound(f"there is no {source}") from None
    except ValueError as error:
        raise LedgerError(f"{source} is not JSON: {error}") from error
    account = parsed.get("account", parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(account, dict):
        raise LedgerError(f"{source} has no account")
    return account


def running(sources: Sequence[Path], run: str | None = None) -> list[str]:
    """The data directories among them whose node is at work in the run."""
    return [str(source) for source in sources if source.is_dir() and _now(newest(source, run)) is not None]


def audit_accounts(accounts: Sequence[Mapping[str, Any]], authority_pem: bytes = b"") -> MassAudit:
    """Compare accounts of one run's nodes, read when nothing was being sent.

    Incarnations that others have evicted count as gone, whatever they say themselves.

    Args:
        accounts: Of the nodes.
        authority_pem: Whose signatures count: then nodes that gave away more than they can have had are named. Empty:
            what was signed is not looked at.

    Raises:
        LedgerError: They are of several runs, or one is none.
    """
    runs = {str(account.get("run")) for account in accounts}
    if len(runs) > 1:
        raise LedgerError(f"these accounts are of several runs: {', '.join(sorted(runs))}")
    ledgers = dict(map(_ledger_from, accounts))
    joins = min(ONE, max((_joins(account) for account in accounts), default=0))
    founders = {str(name) for account in accounts for name in account.get("nodes", ())}
    evicted = {who for ledger in ledgers.values() for who in ledger.evicted}
    audited = audit(
        {me: ledger for me, ledger in ledgers.items() if me not in evicted},
        {who: joins if who.number > 1 else 0 if _came_late(who, founders, ledgers) else ONE for who in evicted},
        "receiver" if any(account.get("weighs") == "receiver" for account in accounts) else "mass",
    )
    named = {peer for ledger in ledgers.values() for peer in ledger.out.keys() | ledger.into.keys()}
    missing = tuple(f"the account of {who} was not given" for who in sorted(named - ledgers.keys() - evicted))
    overdrawn: list[Overdraft | Excess] = []
    forged: list[str] = []
    left: list[Incarnation] = []
    if authority_pem:
        given, forged = checked_receipts(accounts, authority_pem)
        ended = [me for me, account in zip(ledgers, accounts, strict=False) if account.get("ended") in FINAL]
        proven, unproven = checked_proofs(accounts, authority_pem)
        overdrawn, forged = [*overdrafts(ledgers, given, founders, ended), *proven], [*forged, *unproven]
        present = {me: ledger for me, ledger in ledgers.items() if me not in evicted}
        left, belied = checked_farewells(accounts, present, authority_pem)
        forged += belied
    findings = (*map(str, overdrawn), *forged, *missing, *audited.findings)
    return replace(audited, findings=findings, named=tuple(overdrawn), left=tuple(left))


def _joins(account: Mapping[str, Any]) -> int:
    """The units that a further incarnation begins with, as an account says; an older version says nothing of it."""
    joins = account.get("joins", 0)
    if not isinstance(joins, int):
        raise LedgerError(f"this is no account of a node: {joins!r} is no number of units")
    return joins


def _came_late(who: Incarnation, founders: set[str], ledgers: Mapping[Incarnation, Ledger]) -> bool:
    """Whether a node came after the run began: then its first incarnation was never there, and began with nothing.

    Where no account says with whom the run began (those of older versions), it is one whose next incarnation is known,
    and with which nobody exchanged anything.
    """
    if founders:
        return who.node not in founders
    met = {peer for ledger in ledgers.values() for peer in (*ledger.out, *ledger.into)}
    out = {peer for ledger in ledgers.values() for peer in ledger.evicted}
    return who not in met and Incarnation(who.node, who.number + 1) in {*ledgers, *met, *out}


def mass_of(node: NodeState) -> float:
    """A node's mass; 1.0 is what it began with."""
    return weight(node.ledger.live)
