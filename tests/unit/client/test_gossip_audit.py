"""The audit of what nodes stated of a gossip run: every change of a statement, or of what is shown of it, is named."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from covey.cli.main import covey
from covey.cli.views import gossip_tables
from covey.client.audit.gossip import check_gossip
from covey.client.audit.rows import AuditedRun
from covey.client.gossip_nodes import audit_accounts
from covey.client.reading.gossip_parts import view_of
from covey.client.reading.gossip_steps import steps_of
from covey.gossip.audit import MassAudit
from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.mass import ONE
from covey.gossip.receipts import SignedMass
from covey.node.gossip.record.proofs import signed_to_json
from covey.protos import admin_pb2 as pb
from covey.wire.identities.gossip_statement import EdgeStatement, GossipStatement, PartState, StepStatement
from covey.wire.identities.signing import SigningKey
from covey.wire.mass_receipts import Notary

KEYS = {node: SigningKey.generate() for node in ("ada", "bob")}


def statement(node: str, number: int = 1, state: PartState = "completed", sent: int = 6) -> GossipStatement:
    """Ada gave bob 5 units in a batch, and bob ada 6."""
    peer, given = ("bob", 5) if node == "ada" else ("ada", sent)
    had = {"ada": 6, "bob": 5}[node]
    edge = EdgeStatement(peer, 1, str(given), "0", "0", 1, str(had), 1)
    step = StepStatement(number - 1, 1.0, str(ONE), 2.0, 1.0, {"loss": 0.5})
    live = str(ONE - given + had)
    whole = "f", "run", node, KEYS[node].key_id, 1, number, state, "", number, str(ONE), live, "0"
    return GossipStatement(*whole, (), (edge,), (step,), "", 1.0)


def row(plain: GossipStatement, **changes: Any) -> dict[str, Any]:
    """A statement as it is on record."""
    raw = plain.to_bytes()
    fields = {"statement": {"$bytes": raw.hex()}, "signature": {"$bytes": KEYS[plain.node].sign(raw).hex()}}
    names = {"run": "run", "node": plain.node, "incarnation": 1, "number": plain.number, "key_id": plain.key}
    names["step"] = plain.step
    return {**names, **fields, **changes}


def audited(*rows: dict[str, Any], state: str = "completed", **states: str) -> AuditedRun:
    run = AuditedRun()
    run.add("runs", {"run": "run", "state": state})
    for node, key in KEYS.items():
        run.add("keys", {"node": node, "key_id": key.key_id, "public_key": {"$bytes": key.public_bytes.hex()}})
        run.add("gossip_members", {"run": "run", "node": node, "state": states.get(node, "completed")})
    for each in rows:
        run.add("gossip_statements", each)
    return run


def account(node: str, **edges: tuple[int, int, int, int]) -> dict[str, Any]:
    """Of a node that gave and had so much and in so many batches, by peer."""
    names = ("sent", "sent_batches", "applied", "applied_batches")
    plain = {"incarnation": 1, "waiting": 0, "reclaimed": 0}
    listed = [{"peer": peer, **plain, **dict(zip(names, edge, strict=True))} for peer, edge in edges.items()]
    live = ONE + sum(had - gave for gave, _, had, _ in edges.values())
    whole = {"run": "r", "node": node, "incarnation": 1, "minted": ONE, "live": live, "lost": 0, "evicted": []}
    return {**whole, "weighs": "mass", "edges": listed}


def test_the_audit_shows_what_was_exchanged_along_each_edge(tmp_path: Path) -> None:
    half, files = ONE // 2, [tmp_path / f"{node}.json" for node in ("ada", "bob")]
    for path, edge in zip(files, ({"bob": (half, 3, ONE // 4, 1)}, {"ada": (ONE // 4, 1, half, 3)}), strict=True):
        path.write_text(json.dumps(account(path.stem, **edge)))
    paths = list(map(str, files))
    done = CliRunner().invoke(covey, ["gossip", "audit", *paths, "--json"])
    first, second = json.loads(done.stdout)["edges"]
    both = {"from_incarnation": 1, "to_incarnation": 1, "waiting": 0, "reclaimed": 0, "agrees": True}
    given = {"sent": half, "sent_batches": 3, "applied": half, "applied_batches": 3}
    assert first == {"from": "ada", "to": "bob", **both, **given}
    assert (second["from"], second["sent"], second["applied_batches"]) == ("bob", ONE // 4, 1)
    lines = CliRunner().invoke(covey, ["gossip", "audit", *paths]).stdout.splitlines()
    assert lines[0] == "exact: 2 live, 2 minted"
    assert lines[3].split() == ["ada", "bob", "0.5000", "3", "0.5000", "3"]

    files[1].write_text(json.dumps(account("bob", ada=(ONE // 4, 1, half - 1, 3))))
    done = CliRunner().invoke(covey, ["gossip", "audit", *paths, "--json"])
    assert done.exit_code == 1
    assert [edge["agrees"] for edge in json.loads(done.stdout)["edges"]] == [False, True]
    first_line = CliRunner().invoke(covey, ["gossip", "audit", *paths]).stdout.splitlines()[3]
    assert first_line.startswith("ada")
    assert first_line.rstrip().endswith("they do not agree")
    alone = json.loads(CliRunner().invoke(covey, ["gossip", "audit", paths[0], "--json"]).stdout)["edges"]
    assert [(edge["sent"], edge["applied"]) for edge in alone] == [(half, None), (None, ONE // 4)]


def with_late_cyd(joins: int, units: int, gave: int, had: int) -> list[dict[str, Any]]:
    """Of ada and bob, who began the run, and of cyd, who came late, had from bob, gave ada, and is out."""
    out, founders = [["cyd", 1], ["cyd", 2]], ["ada", "bob"]
    second = {"peer": "cyd", "incarnation": 2, "waiting": 0, "reclaimed": 0}
    ada = {**account("ada"), "live": ONE + gave, "evicted": out}
    ada["edges"] = [{**second, "sent": 0, "sent_batches": 0, "applied": gave, "applied_batches": min(gave, 1)}]
    bob = {**account("bob"), "live": ONE - had, "evicted": out}
    bob["edges"] = [{**second, "sent": had, "sent_batches": min(had, 1), "applied": 0, "applied_batches": 0}]
    cyd = {**account("cyd"), "incarnation": 2, "minted": units, "live": 0, "evicted": [["cyd", 1]]}
    cyd["live"] = units + had - gave
    return [{**each, "joins": joins, "nodes": founders} for each in (ada, bob, cyd)]


@pytest.mark.parametrize("is_given", [True, False], ids=["its account is given", "its account is not given"])
@pytest.mark.parametrize("says_founders", [True, False], ids=["", "by an older version"])
@pytest.mark.parametrize(
    ("joins", "had", "gave", "minted", "lost"),
    [
        (ONE, 0, ONE // 2, 3 * ONE, ONE // 2),
        (0, ONE // 2, 0, 2 * ONE, ONE // 2),
        (0, ONE // 2, ONE // 4, 2 * ONE, ONE // 4),
    ],
    ids=["mint", "split", "split, gave"],
)
def test_who_came_late_and_is_out_again_never_had_a_first_incarnation(
    joins: int, had: int, gave: int, minted: int, lost: int, *, says_founders: bool, is_given: bool
) -> None:
    accounts = with_late_cyd(joins, joins, gave, had)[: 3 if is_given else 2]
    if not says_founders:
        accounts = [{name: value for name, value in each.items() if name != "nodes"} for each in accounts]
    mass = audit_accounts(accounts)
    assert mass.findings == ()
    assert (mass.is_exact, mass.minted, mass.lost) == (True, minted, lost)


def test_who_came_late_and_met_nobody_is_no_node_more_and_a_founder_is() -> None:
    met_nobody = [{**account("ada"), "evicted": [["cyd", 1]], "nodes": ["ada"]}]
    assert (audit_accounts(met_nobody).minted, audit_accounts(met_nobody).lost) == (ONE, 0)
    # Of founders that are out, bob gave ada what cyd had given it: nobody gave what it had not.
    edge = {"peer": "bob", "sent": 0, "sent_batches": 0, "waiting": 0, "reclaimed": 0, "applied_batches": 1}
    edges = [{**edge, "incarnation": 1, "applied": 3 * ONE // 2}]
    out = [["bob", 1], ["cyd", 1], ["cyd", 2]]
    ada = {**account("ada"), "live": 5 * ONE // 2, "edges": edges, "evicted": out, "joins": 0}
    mass = audit_accounts([{**ada, "nodes": ["ada", "bob", "cyd"]}])
    assert (mass.is_exact, mass.minted, mass.lost) == (True, 3 * ONE, ONE // 2)


def test_what_is_as_it_was_signed_and_adds_up_is_right() -> None:
    run = audited(row(statement("ada", 1, "working")), row(statement("ada", 2)), row(statement("bob")))
    assert check_gossip(run, "f") == ([], [])


def test_a_run_without_statements_has_nothing_to_check() -> None:
    assert check_gossip(AuditedRun(), "f") == ([], [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signature": {"$bytes": "00" * 64}}, "signature does not belong"),
        ({"number": 2}, "under another name or number"),
        ({"node": "bob", "key_id": KEYS["bob"].key_id}, "signature does not belong"),
        ({"key_id": "gone"}, "signature does not belong"),
        ({"step": 9}, "with another step or key"),
        ({"statement": {"$bytes": "7b7d"}}, "signature does not belong"),
    ],
)
def test_a_statement_that_was_changed_is_named(changes: dict[str, Any], words: str) -> None:
    problems, _ = check_gossip(audited(row(statement("ada"), **changes), row(statement("bob"))), "f")
    assert any(words in problem for problem in problems), problems


def test_an_audit_knows_from_the_record_who_came_late_and_with_what() -> None:
    nobody = replace(statement("ada"), edges=(), live=str(ONE), evicted=(("bob", 1), ("bob", 2)))
    gave = EdgeStatement("bob", 2, "0", "0", "0", 0, str(ONE // 2), 1)
    had = replace(nobody, edges=(gave,), live=str(3 * ONE // 2))
    run = audited(row(had), bob="evicted")
    run.add("events", {"run": "run", "kind": "gossip-joined", "node": "bob"})
    run.rows["runs"][0] = {**run.rows["runs"][0], "spec": json.dumps(spec_json("ad-psgd"))}
    assert check_gossip(run, "f") == ([], [])
    raw = had.to_bytes()
    messages = [
        pb.GossipPart(node="ada", state="completed", statement=raw, late=False),
        pb.GossipPart(node="bob", state="evicted", late=True),
    ]
    mass = view_of(messages, spec_json("ad-psgd")).mass
    assert (mass.is_exact, mass.minted, mass.lost) == (True, 2 * ONE, ONE // 2)


def test_one_that_is_left_out_is_named() -> None:
    rows = [row(statement("ada", number, "working")) for number in (2, 4)]
    problems, _ = check_gossip(audited(*rows, ada="working", bob="invited", state="running"), "f")
    assert problems == ["statement 4 of ada: 3 was expected: one is missing"]


def test_another_run_s_statement_is_named() -> None:
    other = replace(statement("ada"), run="other")
    problems, _ = check_gossip(audited(row(other, run="run"), row(statement("bob"))), "f")
    assert "statement 1 of ada: is of another federation or run" in problems


def test_a_part_is_through_only_if_its_node_said_so() -> None:
    problems, _ = check_gossip(audited(row(statement("ada", state="working")), row(statement("bob"))), "f")
    assert problems == ["ada is on record as completed, and has stated working"]
    problems, _ = check_gossip(audited(row(statement("bob"))), "f")
    assert "ada is on record as completed, and has stated nothing" in problems


def test_mass_that_was_made_is_named_once_all_have_ended() -> None:
    wrong = [row(statement("ada")), row(statement("bob", sent=7))]
    problems, notes = check_gossip(audited(*wrong), "f")
    assert [problem for problem in problems if "bob gave ada 7 units" in problem]
    assert notes == []
    problems, notes = check_gossip(audited(*wrong, state="running"), "f")
    assert problems == []
    assert notes[0].startswith("not every node has stated how its part ended")


def test_the_view_has_what_each_node_stated_last() -> None:
    raw = statement("ada").to_bytes()
    messages = [
        pb.GossipPart(node="ada", state="completed", address="a:1", received_at=5.0, statement=raw, late=False),
        pb.GossipPart(node="bob", state="invited", late=False),
        pb.GossipPart(node="cyd", state="working", statement=b"not one"),
    ]
    view = view_of(messages, spec_json("d-psgd"))
    ada, bob, cyd = view.parts
    assert (ada.node, ada.step, ada.metrics, ada.trained_s, ada.received_at) == ("ada", 1, {"loss": 0.5}, 2.0, 5.0)
    assert ada.weight == pytest.approx(1.0)
    assert (bob.incarnation, cyd.incarnation, cyd.state) == (0, 0, "working")
    assert view.mass.weighs == "receiver"
    assert view_of(messages, spec_json("sgp")).mass.weighs == "mass"
    assert view_of(messages, spec_json("not-installed")).mass.weighs == "mass"
    console = Console(width=80, record=True, file=io.StringIO())
    for part in gossip_tables.parts(view, is_ended=False):
        console.print(part)
    text = console.export_text()
    assert "exchanges 1 models, as stated at different moments" in text
    assert "(it only calls)" in text
    assert max(map(len, text.splitlines())) <= 80


def test_curves_are_made_of_what_was_stated() -> None:
    again = statement("ada")
    read = steps_of(audited(row(again), row(statement("bob")), {**row(again), "statement": "no"}))
    assert [(step.node, step.step, dict(step.metrics)) for step in read] == [
        (node, again.steps[0].step, {"loss": 0.5}) for node in ("ada", "bob")
    ]
    assert read[0].row()["loss"] == 0.5
    assert read[0].weight == pytest.approx(1.0)


def spec_json(protocol: str) -> dict[str, Any]:
    return {"name": "g", "mode": "gossip", "task": {"name": "digits"}, "gossip": {"protocol": protocol}}


def test_who_left_is_known_by_what_it_signed_and_what_belies_an_account_is_said(identity: Any, authority: Any) -> None:
    ada = Notary(identity("ada"), "r")
    given, had = {"ada": (6, 1, 5, 1)}, {"bob": (5, 1, 6, 1)}
    bob = account("bob", **given)

    def audit_with(*farewells: SignedMass, who: dict[str, Any] = bob) -> MassAudit:
        listed = [signed_to_json(each) for each in farewells]
        return audit_accounts([account("ada", **had), {**who, "farewells": listed}], authority.pem)

    def left(gave: int = 1, took: int = 1, run: str = "r") -> SignedMass:
        peer = Incarnation("bob")
        ledger = Ledger(out={peer: OutEdge(5, gave)}, into={peer: InEdge(6, took)})
        return Notary(identity("ada"), run).sign_left(Incarnation("ada"), ledger)

    honest = audit_with(left())
    assert (honest.left, honest.findings) == ((Incarnation("ada"),), ())
    assert "left by their own signature: ada" in gossip_tables.mass_line(honest)
    assert audit_with(left(gave=2)).findings == ("ada left, and signed to have given bob batch 2: bob had 1",)
    assert audit_with(left(took=3)).findings == ("ada left, and signed to have had batch 3 of bob, which gave it 1",)
    assert audit_with(left(), left(took=0)).findings == ("ada signed two farewells that differ",)
    for forged in (ada.sign_had(left().statement), left(run="other")):
        replayed = audit_with(forged)
        assert replayed.left == ()
        assert "has a farewell that does not count" in replayed.findings[0]
