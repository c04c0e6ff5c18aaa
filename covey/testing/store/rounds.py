"""Conformance of a store: rounds, updates and versions."""

# ruff: noqa: D102 (a test's name says what it checks)

from __future__ import annotations

import math
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.errors import Conflict, NotFound, StoreError
from covey.storage.record.contract import StepRecord, Store, step_verdict
from covey.testing.store import records as make

THREADS = 8
_ANSWERS = st.tuples(
    st.sampled_from(["update", "declined", "lost", "rejected", "attempt", "aggregate"]),
    st.sampled_from(make.NODES),
    st.sampled_from(["", " b"]),
)


class RoundConformance:
    """From the opening of a round to its commit."""

    def test_a_round_comes_back(self, store: Store) -> None:
        run = make.start_run(store)
        record = make.round_record(run, 1)
        store.open_round(record)
        store.open_round(record)
        assert store.round(run, 1) == record
        assert store.rounds(run) == [record]
        with pytest.raises(NotFound):
            store.round(run, 2)
        assert store.rounds("none") == []

    def test_a_round_needs_a_running_run_and_its_base(self, store: Store) -> None:
        with pytest.raises(NotFound):
            store.open_round(make.round_record("none", 1))
        run = make.start_run(store)
        with pytest.raises(Conflict, match="version 1"):
            store.open_round(make.round_record(run, 2))
        store.finish_run(run, "stopped", "", 1.0)
        with pytest.raises(Conflict, match="stopped"):
            store.open_round(make.round_record(run, 1))

    def test_another_attempt_keeps_the_updates(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        update = make.update_record(run, 1, "ada")
        store.record_update(update)
        store.record_outcome(make.outcome_record(run, 1, "bob", "declined"))
        store.record_outcome(make.outcome_record(run, 1, "cyd", "lost"))
        store.record_outcome(make.outcome_record(run, 1, "dan", "rejected"))
        store.begin_aggregation(run, 1)
        store.open_round(make.round_record(run, 1, 2, invited=("ada", "dan", "eve"), started_at=9999.0))
        group = store.round(run, 1)
        assert (group.attempt, group.state, group.invited) == (2, "collecting", ("ada", "dan", "eve"))
        assert (group.started_at, group.attempt_at) == (2001.0, 2003.0)
        assert [(u.node, u.verdict) for u in store.updates(run, 1)] == [
            ("ada", "received"),
            ("bob", "declined"),
            ("cyd", "lost"),
            ("dan", "rejected"),
        ]
        assert store.updates(run, 1)[0] == update
        store.open_round(make.round_record(run, 1, 3, invited=("ada", "bob")))
        assert {u.node: u.verdict for u in store.updates(run, 1)}.get("bob") is None

    def test_an_earlier_attempt_or_another_base_is_refused(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1, 3))
        with pytest.raises(Conflict, match="attempt 3"):
            store.open_round(make.round_record(run, 1, 2))
        with pytest.raises(Conflict, match="version 0"):
            store.open_round(make.round_record(run, 1, 4, base_version=5))

    def test_a_round_that_has_ended_is_not_opened_again(self, store: Store) -> None:
        run = make.start_run(store)
        make.play_round(store, run, 1)
        with pytest.raises(Conflict, match="committed"):
            store.open_round(make.round_record(run, 1, 2))

    def test_an_update_comes_back_as_it_was(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        metrics = {"loss": [math.inf, -math.inf, 5e-324, 0.1 + 0.2], "deep": {"$float": 1, "text": "é\0"}}
        update = make.update_record(run, 1, "ada", metrics=metrics)
        assert store.record_update(update)
        assert store.updates(run, 1) == [update]
        assert store.referenced_digests() >= make.files_of(update)

    def test_an_open_round_says_how_many_bytes_came(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        updates = [make.update_record(run, 1, node, bytes=2**40 + 1) for node in ("ada", "bob")]
        assert all(store.record_update(update) for update in updates)
        received = store.round(run, 1).bytes_received
        assert (received, type(received)) == (2**41 + 2, int)

    def test_not_a_number_survives(self, store: Store) -> None:
        run = make.start_run(store)
        store.record_metrics(run, 0, {"loss": math.nan}, evaluated=True)
        loss = store.version(run, 0).metrics["loss"]
        assert isinstance(loss, float)
        assert math.isnan(loss)

    def test_the_same_update_again_is_the_same_receipt_at_any_time(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        update = make.update_record(run, 1, "ada")
        assert store.record_update(update)
        assert not store.record_update(update)
        make.commit(store, run, 1, [make.accepted(update)])
        assert not store.record_update(update)
        assert store.updates(run, 1)[0].verdict == "accepted"

    def test_a_node_has_one_update_a_round(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        update = make.update_record(run, 1, "ada")
        store.record_update(update)
        with pytest.raises(Conflict):
            store.record_update(make.update_record(run, 1, "ada", "other"))
        assert store.updates(run, 1) == [update]
        with pytest.raises(NotFound):
            store.record_update(make.update_record(run, 2, "ada"))

    def test_a_late_update_is_refused(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        store.begin_aggregation(run, 1)
        late = make.update_record(run, 1, "ada")
        with pytest.raises(Conflict, match="aggregating"):
            store.record_update(late)
        assert store.updates(run, 1) == []
        assert not store.referenced_digests() & make.files_of(late)

    def test_an_update_replaces_a_loss_but_not_a_rejection(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        for node, verdict in zip(make.NODES, ("lost", "declined", "rejected"), strict=True):
            assert store.record_outcome(make.outcome_record(run, 1, node, verdict))
        assert store.record_update(make.update_record(run, 1, "ada"))
        assert store.record_update(make.update_record(run, 1, "bob"))
        with pytest.raises(Conflict, match="rejected"):
            store.record_update(make.update_record(run, 1, "cyd"))
        assert [u.verdict for u in store.updates(run, 1)] == ["received", "received", "rejected"]

    def test_an_update_that_cannot_be_used_is_forgotten_and_may_come_again(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        ada, bob = (make.update_record(run, 1, node) for node in ("ada", "bob"))
        for update in (ada, bob):
            store.record_update(update)
        store.begin_aggregation(run, 1)
        assert not store.forget_update(replace(ada, digest="of another"))
        assert store.forget_update(ada)
        assert not store.forget_update(ada)
        assert store.round(run, 1).state == "collecting"
        assert store.updates(run, 1) == [bob]
        assert not make.files_of(ada) & store.referenced_digests()
        assert make.files_of(bob) <= store.referenced_digests()
        assert store.record_update(ada)
        make.commit(store, run, 1, [make.accepted(ada), make.accepted(bob)])
        assert not store.forget_update(bob)
        with pytest.raises(NotFound):
            store.forget_update(make.update_record(run, 9, "ada"))

    def test_a_received_update_can_only_become_rejected(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        update = make.update_record(run, 1, "ada")
        store.record_update(update)
        for verdict in ("lost", "declined"):
            assert not store.record_outcome(make.outcome_record(run, 1, "ada", verdict))
        assert store.updates(run, 1) == [update]
        store.begin_aggregation(run, 1)
        assert store.record_outcome(make.outcome_record(run, 1, "ada", "rejected", "too far \0 away"))
        stored = store.updates(run, 1)[0]
        assert stored == replace(update, verdict="rejected", reason=stored.reason)
        assert stored.reason.startswith("too far")

    def test_an_outcome_changes_nothing_in_a_round_that_has_ended(self, store: Store) -> None:
        run = make.start_run(store)
        make.play_round(store, run, 1, ("ada",))
        before = store.updates(run, 1)
        for node in ("ada", "bob"):
            assert not store.record_outcome(make.outcome_record(run, 1, node, "rejected"))
        assert store.updates(run, 1) == before
        with pytest.raises(NotFound):
            store.record_outcome(make.outcome_record(run, 9, "ada", "lost"))
        with pytest.raises(StoreError):
            store.record_outcome(make.outcome_record(run, 1, "ada", "accepted"))

    def test_updates_come_by_node_id_whatever_the_order_of_arrival(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        names = ["b", "a-2", "B", "a10", "é", "a_1"]
        for node in names:
            store.record_update(make.update_record(run, 1, node))
        assert [update.node for update in store.updates(run, 1)] == sorted(names)

    def test_begin_aggregation_can_be_repeated_until_the_round_has_ended(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        store.begin_aggregation(run, 1)
        make.commit(store, run, 1)
        with pytest.raises(Conflict):
            store.begin_aggregation(run, 1)
        with pytest.raises(NotFound):
            store.begin_aggregation(run, 2)

    def test_a_commit_records_round_version_and_verdicts(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        updates = [make.update_record(run, 1, node) for node in make.NODES]
        for update in updates:
            store.record_update(update)
        verdicts = [make.accepted(updates[0], 0.75), make.accepted(updates[1], 0.25)]
        verdicts.append(replace(updates[2], verdict="rejected", reason="far", numbers={"distance": math.inf}))
        version = make.commit(store, run, 1, verdicts)
        group = store.round(run, 1)
        assert (group.state, group.committed_at) == ("committed", 4001.0)
        assert (group.bytes_received, group.bytes_sent, group.accepted, group.rejected) == (11, 22, 2, 1)
        assert store.updates(run, 1) == verdicts
        assert store.version(run, -1) == store.version(run, 1) == version
        step = StepRecord(
            run,
            1,
            cause=((1, 1),),
            newest=0,
            version=1,
            roster=3,
            verdicts=tuple(map(step_verdict, verdicts)),
            decided_at=4001.0,
            accepted=2,
            rejected=1,
        )
        assert store.steps(run) == [step]
        assert store.referenced_digests() >= make.files_of(version)

    def test_a_commit_can_be_repeated_with_the_same_version_only(self, store: Store) -> None:
        run = make.start_run(store)
        version = make.play_round(store, run, 1)
        before = (store.rounds(run), store.updates(run, 1), store.versions(run), store.steps(run))
        (step,) = store.steps(run)
        store.commit_step(step, (), version)
        for again, other in ((step, make.version_record(run, 1, "other")), (replace(step, number=2), version)):
            with pytest.raises(Conflict):
                store.commit_step(again, (), other)
        assert (store.rounds(run), store.updates(run, 1), store.versions(run), store.steps(run)) == before

    def test_a_commit_is_all_or_nothing(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        update = make.update_record(run, 1, "ada")
        store.record_update(update)
        stranger = make.accepted(make.update_record(run, 1, "bob"))
        with pytest.raises(Conflict, match="bob"):
            make.commit(store, run, 1, [make.accepted(update), stranger])
        assert store.round(run, 1).state == "aggregating"
        assert store.updates(run, 1) == [update]
        assert store.steps(run) == []
        assert [version.version for version in store.versions(run)] == [0]
        assert not store.referenced_digests() & make.files_of(make.version_record(run, 1))

    def test_only_an_aggregating_round_is_committed(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        version = make.version_record(run, 1)
        step = make.commit_step_of(store, version)
        with pytest.raises(Conflict, match="collecting"):
            store.commit_step(step, (), version)
        with pytest.raises(NotFound):
            store.commit_step(replace(step, cause=((2, 1),)), (), version)
        store.begin_aggregation(run, 1)
        with pytest.raises(Conflict, match="phase 1"):
            store.commit_step(replace(step, cause=((1, 2),)), (), version)
        with pytest.raises(Conflict, match="version 0"):
            store.commit_step(replace(step, newest=1, version=2), (), make.version_record(run, 2))
        with pytest.raises(Conflict, match="cannot make version 2"):
            store.commit_step(replace(step, version=2), (), make.version_record(run, 2))
        with pytest.raises(Conflict, match="cannot make version None"):
            store.commit_step(step)
        with pytest.raises(Conflict, match="step 1 of"):
            store.commit_step(replace(step, number=2), (), version)
        assert store.steps(run) == []

    def test_metrics_are_merged_and_shown_with_the_round(self, store: Store) -> None:
        run = make.start_run(store)
        make.play_round(store, run, 1)
        store.record_metrics(run, 1, {"nodes/accuracy": 0.5}, evaluated=False)
        assert not store.version(run, 1).evaluated
        store.record_metrics(run, 1, {"accuracy": 0.75}, evaluated=True)
        store.record_metrics(run, 1, {"nodes/accuracy": 0.625}, evaluated=False)
        version = store.version(run, 1)
        assert version.evaluated
        assert store.round(run, 1).metrics == version.metrics == {"accuracy": 0.75, "nodes/accuracy": 0.625}
        with pytest.raises(NotFound):
            store.record_metrics(run, 2, {}, evaluated=True)

    def test_versions_outside_of_rounds(self, store: Store) -> None:
        run = make.start_run(store)
        version = make.version_record(run, 1)
        store.add_version(version)
        store.add_version(version)
        with pytest.raises(Conflict):
            store.add_version(make.version_record(run, 1, "other"))
        assert [version.version for version in store.versions(run)] == [0, 1]
        with pytest.raises(NotFound):
            store.version(run, 2)
        with pytest.raises(NotFound):
            store.version("none", -1)
        with pytest.raises(NotFound):
            store.add_version(make.version_record("none", 0))

    def test_eight_threads_record_updates_and_read(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        together = threading.Barrier(THREADS)

        def send(index: int) -> list[bool]:
            together.wait(30)
            new = []
            for number in range(5):
                new.append(store.record_update(make.update_record(run, 1, f"node-{index}-{number}")))
                new.append(store.record_update(make.update_record(run, 1, f"shared-{number}")))
                store.updates(run, 1)
            return new

        with ThreadPoolExecutor(THREADS) as pool:
            answers = list(pool.map(send, range(THREADS)))
        assert all(all(new[::2]) for new in answers)
        assert sum(sum(new[1::2]) for new in answers) == 5
        assert len(store.updates(run, 1)) == 5 * THREADS + 5

    def test_any_order_of_answers_ends_as_the_rules_say(self, store: Store) -> None:
        @given(steps=st.lists(_ANSWERS, max_size=12))
        @settings(max_examples=25, deadline=None)
        def any_order(steps: list[tuple[str, str, str]]) -> None:
            _answer(store, steps)

        any_order()


def _answer(store: Store, steps: list[tuple[str, str, str]]) -> None:
    run = make.start_run(store, f"run-{uuid.uuid4().hex}")
    store.open_round(make.round_record(run, 1))
    expected: dict[str, tuple[str, str]] = {}
    attempt, collecting = 1, True
    for kind, node, label in steps:
        verdict, known = expected.get(node, ("", ""))
        if kind == "attempt":
            attempt, collecting = attempt + 1, True
            store.open_round(make.round_record(run, 1, attempt))
            expected = {n: v for n, v in expected.items() if v[0] in ("received", "rejected")}
        elif kind == "aggregate":
            collecting = False
            store.begin_aggregation(run, 1)
        elif kind == "update":
            update = make.update_record(run, 1, node, label)
            if known == update.digest:
                assert not store.record_update(update)
            elif verdict in ("", "lost", "declined") and collecting:
                assert store.record_update(update)
                expected[node] = ("received", update.digest)
            else:
                with pytest.raises(Conflict):
                    store.record_update(update)
        else:
            store.record_outcome(make.outcome_record(run, 1, node, kind))
            if verdict in ("", "lost", "declined"):
                expected[node] = (kind, "")
            elif verdict == "received" and kind == "rejected":
                expected[node] = (kind, known)
    assert {u.node: (u.verdict, u.digest) for u in store.updates(run, 1)} == expected
    assert store.round(run, 1).rejected == sum(verdict == "rejected" for verdict, _ in expected.values())
