import hashlib
from dataclasses import replace

import pytest

from covey.cli.views.reports import audit_text
from covey.client.audit.verify import examine
from covey.client.reading.translation import signed_of
from covey.client.values import Run
from covey.protos import admin_pb2 as pb
from covey.wire.identities.signing import CommitStatement, CommitVerdict, PartStatement, SigningKey, UpdateStatement

FEDERATION, RUN = "fe" * 16, "3f9a01c2d4e5"
COORDINATOR, KEYS = SigningKey.generate(), {name: SigningKey.generate() for name in "ab"}
BASES = {1: "00" * 32, 2: "11" * 32}


def update(number, node, **changes):
    part = PartStatement("model", "none", {}, "1a" * 32, f"{number:02x}" * 32, 40)
    made = UpdateStatement(FEDERATION, RUN, number, node, KEYS[node].key_id, BASES[number], (part,), 10.0, {})
    raw = replace(made, **changes).to_bytes()
    return pb.SignedUpdate(
        round=number,
        node=node,
        statement=raw,
        signature=KEYS[node].sign(raw),
        signing_key=KEYS[node].public_bytes,
        verdict="accepted",
        kept=number == 2,
    )


def commit(number, updates, parent="", key=COORDINATOR, **changes):
    verdicts = tuple(
        CommitVerdict(u.node, hashlib.sha256(u.statement).hexdigest(), "accepted", "", 1 / len(updates))
        for u in updates
    )
    made = CommitStatement(FEDERATION, RUN, number, number, f"{number * 11:02d}" * 32, "cc" * 32, parent, verdicts, ())
    raw = replace(made, **changes).to_bytes()
    return pb.Commit(version=number, statement=raw, signature=key.sign(raw))


def chain():
    updates = {(number, node): update(number, node) for number in (1, 2) for node in "ab"}
    first = commit(1, [updates[1, "a"], updates[1, "b"]])
    parent = hashlib.sha256(first.statement).hexdigest()
    second = commit(2, [updates[2, "a"], updates[2, "b"]], parent)
    return pb.AuditReply(
        coordinator_key=COORDINATOR.public_bytes, commits=[first, second], updates=list(updates.values())
    )


MEAN = {"method": {"name": "none"}, "aggregation": {"name": "mean", "pre": []}}
CENTRED_CLIP = {**MEAN, "aggregation": {"name": "centered-clip", "pre": []}}
CLIPPED_MEAN = {**MEAN, "aggregation": {"name": "mean", "pre": [{"name": "static-clip"}]}}


def problems(reply, rounds=2, newest="22" * 32, federation=FEDERATION, first=BASES[1], spec=MEAN):
    run = Run(RUN, "digits", "rounds", "completed", rounds_committed=rounds, model_sha256=newest, spec=spec)
    return examine(signed_of([reply]), run, federation, COORDINATOR.public_bytes, first)


def test_an_untouched_run_is_right_and_reports_pruned_payloads_apart():
    report = problems(chain())
    assert report.ok, report.problems
    assert (report.commits, report.updates, report.pruned) == (2, 4, 2)
    assert "every signature is valid" in audit_text(report)


def test_a_run_without_rounds_is_right():
    assert problems(pb.AuditReply(coordinator_key=COORDINATOR.public_bytes), rounds=0, newest="00" * 32).ok


def _changed_update(reply):
    reply.updates[0].statement = reply.updates[0].statement.replace(b"10.0", b"99.0")


def _another_node(reply):
    reply.updates[0].node = "b"


def _another_round(reply):
    reply.updates[0].round = 2


def _other_update_in_its_place(reply):
    reply.updates[0].CopyFrom(update(1, "a", weight=11.0))


def _other_base(reply):
    reply.updates[2].CopyFrom(update(2, "a", base="99" * 32))


def _wrong_key_name(reply):
    reply.updates[0].CopyFrom(update(1, "a", key=KEYS["b"].key_id))


def _missing_update(reply):
    del reply.updates[3]


def _other_verdict(reply):
    reply.updates[1].verdict = "rejected"


def _changed_commit(reply):
    reply.commits[1].statement = reply.commits[1].statement.replace(b"accepted", b"rejected")


def _foreign_signature(reply):
    first = reply.commits[0]
    first.signature = SigningKey.generate().sign(first.statement)


def _broken_chain(reply):
    reply.commits[1].CopyFrom(commit(2, list(reply.updates[2:]), "ab" * 32))


def _missing_commit(reply):
    del reply.commits[0]


def _missing_last_commit(reply):
    del reply.commits[1]


def _no_json(reply):
    raw = b"\xff not json"
    reply.commits[0].CopyFrom(pb.Commit(version=1, statement=raw, signature=COORDINATOR.sign(raw)))


def _shares(reply):
    verdicts = (CommitVerdict("a", hashlib.sha256(reply.updates[0].statement).hexdigest(), "accepted", "", 0.5),)
    reply.commits[0].CopyFrom(commit(1, reply.updates[:2], verdicts=verdicts))


def _other_coordinator(reply):
    reply.coordinator_key = SigningKey.generate().public_bytes


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_changed_update, "round 1, update of a: the signature does not belong"),
        (_another_node, "update of b: was signed for round 1 by a"),
        (_another_round, "round 2, update of a: was signed for round 1"),
        (_other_update_in_its_place, "round 1, update of a: the commit is about another update"),
        (_other_base, "round 2, update of a: was not made from version 1"),
        (_wrong_key_name, "round 1, update of a: names another key"),
        (_missing_update, "round 2, update of b: is in the commit, but not on record"),
        (_other_verdict, "round 1, update of b: is on record as rejected, but was committed as accepted"),
        (_changed_commit, "commit 2: the signature does not belong"),
        (_foreign_signature, "commit 1: the signature does not belong"),
        (_broken_chain, "commit 2: does not follow from the commit before it"),
        (_missing_commit, "commit 2: 1 was expected: one is missing"),
        (_missing_last_commit, "2 rounds are committed, but 1 are signed"),
        (_no_json, "commit 1: "),
        (_shares, "commit 1: the shares of its accepted updates sum to 0.5"),
        (_other_coordinator, "the coordinator signs with another key"),
    ],
)
def test_whatever_was_changed_is_found_and_named(tamper, said):
    reply = chain()
    tamper(reply)
    report = problems(reply)
    assert not report.ok
    assert any(said in line for line in report.problems), report.problems


def problems_of_shares(spec, *shares):
    reply = chain()
    verdicts = tuple(
        CommitVerdict(u.node, hashlib.sha256(u.statement).hexdigest(), "accepted", "", share)
        for u, share in zip(reply.updates[2:], shares, strict=True)
    )
    parent = hashlib.sha256(reply.commits[0].statement).hexdigest()
    reply.commits[1].CopyFrom(commit(2, reply.updates[2:], parent, verdicts=verdicts))
    return problems(reply, spec=spec).problems


@pytest.mark.parametrize("spec", [CENTRED_CLIP, CLIPPED_MEAN])
def test_a_rule_that_clips_need_not_give_away_the_whole(spec):
    assert problems_of_shares(spec, 0.5, 0.4992) == ()


@pytest.mark.parametrize("spec", [MEAN, CENTRED_CLIP, CLIPPED_MEAN])
@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((0.6, 0.5), "commit 2: the shares of its accepted updates sum to 1.1"),
        ((1.5, -0.5), "commit 2: an accepted update has a share of 1.5"),
        ((1.5, -0.5), "commit 2: an accepted update has a share of -0.5"),
    ],
)
def test_no_rule_gives_away_more_than_the_whole(spec, shares, said):
    assert said in problems_of_shares(spec, *shares)


def test_the_plain_mean_gives_away_the_whole():
    assert problems_of_shares(MEAN, 0.5, 0.4992) == ("commit 2: the shares of its accepted updates sum to 0.9992",)


def test_a_run_of_another_federation_is_found():
    report = problems(chain(), federation="ab" * 16)
    assert any("is of another federation" in line for line in report.problems)


def test_another_newest_model_is_found():
    report = problems(chain(), newest="ff" * 32)
    assert report.problems == ("the newest model is not the one of the last commit",)


def test_the_first_round_is_compared_with_the_first_model_where_that_is_known():
    report = problems(chain(), first="77" * 32)
    assert report.problems == tuple(f"round 1, update of {node}: was not made from version 0" for node in "ab")
    assert problems(chain(), first="").ok


def test_what_is_signed_may_come_in_any_number_of_messages():
    whole = chain()
    parts = [
        pb.AuditReply(coordinator_key=whole.coordinator_key),
        *(pb.AuditReply(commits=[commit]) for commit in whole.commits),
        *(pb.AuditReply(updates=[update]) for update in whole.updates),
    ]
    assert signed_of(parts) == signed_of([whole])
