"""A round's answers on their way to the worker, and the verdicts on their way back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from covey.aggregation.verdicts import Verdict
from covey.coordinator.modes.rounds.answers import collected_files, judged, step_answers
from covey.parts import COLLECT, DeclaredPart, PartFile
from covey.storage.record.contract import PartRecord
from covey.testing.store import records as make
from covey.worker.jobs.runs import Description
from covey.worker.jobs.steps import StepJob, StepResult, updates_of

ROSTER = ("cyd", "ada", "bob")


def answer(node, phase=1, part="model", **changes):
    file = PartRecord(part, "none", make.artifact(f"{node} {part}"))
    return make.update_record("run", 1, node, f"{phase}", parts=(file,), phase=phase, **changes)


def path_of(digest):
    return Path("/files") / digest


def test_a_row_is_all_that_a_node_sent_in_roster_order_with_the_weight_of_its_first_answer():
    updates = [
        answer("bob", weight=2.0, metrics={}),
        answer("ada", 2, weight=9.0, metrics={"loss": [8.0, 2.0]}),
        answer("ada", 1, "bid", weight=1.0, metrics={"loss": [3.0, 2.0]}),
        answer("eve"),  # is not of this run
    ]
    answers = step_answers(updates, ROSTER, path_of, for_method=True)
    rows = updates_of(StepJob("run", "{}", "[]", 0, {}, answers, {}, Path("/out"), {}, ROSTER))
    assert [(row.node, row.weight, row.loss) for row in rows] == [("ada", 1.0, 1.5), ("bob", 2.0, None)]
    assert rows[0].parts == {
        "bid": path_of(make.artifact("ada bid").digest),
        "model": path_of(make.artifact("ada model").digest),
    }


def test_without_a_method_that_looks_only_updates_are_named_and_nothing_but_what_the_rule_needs():
    lost = make.outcome_record("run", 1, "cyd", "lost", "no connection")
    rows = step_answers([answer("bob", weight=3.0), lost, answer("ada", weight=2.0)], ROSTER, path_of, for_method=False)
    assert [(row.node, row.weight, row.loss, row.metrics) for row in rows] == [
        ("ada", 2.0, 0.15, {}),
        ("bob", 3.0, 0.15, {}),
    ]


def test_the_method_sees_every_answer_by_phase_and_then_in_roster_order():
    lost = make.outcome_record("run", 1, "cyd", "lost", "no connection")
    rows = step_answers(
        [answer("bob"), answer("ada", 2), answer("ada"), lost, answer("eve")], ROSTER, path_of, for_method=True
    )
    assert [(row.node, row.phase, row.verdict, row.reason) for row in rows] == [
        ("cyd", 1, "lost", "no connection"),
        ("ada", 1, "received", ""),
        ("bob", 1, "received", ""),
        ("ada", 2, "received", ""),
    ]
    assert (rows[0].parts, rows[1].metrics) == ({}, {"loss": (1.5, 10.0)})


def test_all_updates_of_a_node_have_its_verdict_and_one_of_them_its_share():
    verdicts = (Verdict("ada", "accepted", "", 0.75, {"norm": 1.0}), Verdict("bob", "rejected", "too far away"))
    updates = [answer("ada"), answer("ada", 2), answer("bob"), answer("cyd")]
    done = judged(updates, StepResult(verdicts), rule_phase=2)
    assert [(u.node, u.phase, u.verdict, u.reason, u.share) for u in done] == [
        ("ada", 1, "accepted", "", 0.0),
        ("ada", 2, "accepted", "", 0.75),
        ("bob", 1, "rejected", "too far away", 0.0),
    ]
    assert done[0].numbers == {"norm": 1.0}


def kept(*names):
    parts = tuple(
        DeclaredPart(name, "none", "", 64, False, 1, None, "all", COLLECT, ("version",) if keep else ())
        for name, keep in names
    )
    return Description(central=False, aggregator_min=1, slots={}, parts=parts)


def test_a_version_keeps_each_nodes_newest_accepted_file_of_the_parts_that_are_collected():
    before = (
        PartFile("method/member/ada", "none", make.artifact("older of ada")),
        PartFile("method/member/cyd", "none", make.artifact("older of cyd")),
        PartFile("momentum", "none", make.artifact("not of the method")),
    )
    base = make.version_record("run", 1, state=before)
    verdicts = [
        replace(answer("ada", part="member"), verdict="accepted"),
        replace(answer("bob", part="bid"), verdict="accepted"),
        replace(answer("cyd", part="member"), verdict="rejected"),
    ]
    files = collected_files(kept(("member", True), ("bid", False)), base, verdicts)
    assert files == (
        PartFile("method/member/ada", "none", make.artifact("ada member")),
        PartFile("method/member/cyd", "none", make.artifact("older of cyd")),
    )
    assert collected_files(kept(("bid", False)), base, verdicts) == ()
