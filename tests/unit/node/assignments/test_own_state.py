"""State that counts whatever becomes of an update: when it does, and that it survives a crash at any moment."""

from __future__ import annotations

from pathlib import Path

from covey import messages as msg
from covey.artifact import Artifact, artifact_of
from covey.node.assignments.record.local_state import MAX_RUNS
from covey.node.assignments.record.store import NodeStore
from covey.node.updates import FinishedUpdate
from covey.parts import LOCAL, slot

ACCEPTED, UNKNOWN = msg.Feedback("u1", accepted=True), msg.Feedback()


def file(content: str) -> Artifact:
    return artifact_of([content.encode()])


def finished(number: int = 1, digest: str = "u1") -> FinishedUpdate:
    return FinishedUpdate("run", number, "base", digest, b"s", b"s", ())


def test_it_counts_from_the_next_round_on_though_the_update_was_not_accepted(tmp_path: Path) -> None:
    store = NodeStore(tmp_path)
    store.save(finished(), {"c": file("c1")}, {"own": file("o1")})
    assert store.own_state("run") == {"own": file("o1")}
    assert NodeStore(tmp_path).settle("run", msg.Feedback("u1", accepted=False), 2) == {"own": file("o1")}
    assert NodeStore(tmp_path).settle("run", UNKNOWN, 2) == {"own": file("o1")}


def test_both_kinds_count_once_the_update_was_accepted(tmp_path: Path) -> None:
    store = NodeStore(tmp_path)
    store.save(finished(), {"c": file("c1")}, {"own": file("o1")})
    assert store.settle("run", ACCEPTED, 2) == {"c": file("c1"), "own": file("o1")}
    assert store.settle("run", ACCEPTED, 2) == {"c": file("c1"), "own": file("o1")}


def test_a_training_that_is_done_again_starts_from_where_it_started(tmp_path: Path) -> None:
    store = NodeStore(tmp_path)
    store.save(finished(1, "u1"), {}, {"own": file("o1")})
    store.settle("run", ACCEPTED, 2)
    store.save(finished(2, "u2"), {}, {"own": file("o2")})
    # As after a crash between the state and the journal, or when the update's files are gone.
    again = NodeStore(tmp_path)
    assert again.settle("run", ACCEPTED, 2) == {"own": file("o1")}
    assert again.own_state("run") == {"own": file("o1")}


def test_what_is_needed_is_known(tmp_path: Path) -> None:
    store = NodeStore(tmp_path)
    store.save(finished(), {"c": file("c1")}, {"own": file("o1")})
    assert store.needed() == {file("c1").digest, file("o1").digest}
    store.settle("run", UNKNOWN, 2)
    assert store.needed() == {file("o1").digest}


def test_other_runs_have_their_own(tmp_path: Path) -> None:
    store = NodeStore(tmp_path)
    store.save(finished(), {}, {"own": file("o1")})
    assert store.settle("another", UNKNOWN, 1) == {}
    assert store.own_state("another") == {}
    assert store.own_state("run") == {"own": file("o1")}


def test_a_node_that_lost_what_it_kept_knows_so_until_its_next_round(tmp_path: Path) -> None:
    store = NodeStore(tmp_path)
    assert store.settle("run", UNKNOWN, 1) == {}  # the first round: there is nothing to lose
    assert store.lost_before("run") == 0
    store.save(finished(), {"c": file("c1")}, {})
    (tmp_path / "state" / "carried.json").unlink()
    assert NodeStore(tmp_path).settle("run", ACCEPTED, 2) == {}
    assert NodeStore(tmp_path).settle("run", ACCEPTED, 2) == {}  # the training is done again after a crash
    again = NodeStore(tmp_path)
    assert again.lost_before("run") == 2
    again.save(finished(2, "u2"), {"c": file("c2")}, {})
    assert again.lost_before("run") == 2  # the same update may have to be made again
    assert again.settle("run", msg.Feedback("u2", accepted=True), 3) == {"c": file("c2")}
    assert again.lost_before("run") == 0


def test_what_stays_of_a_model_outlasts_its_run_and_nothing_else_does(tmp_path: Path) -> None:
    store, names = NodeStore(tmp_path), [f"run-{number}" for number in range(MAX_RUNS + 1)]
    for name in names:
        update = FinishedUpdate(name, 1, "base", name, b"s", b"s", ())
        store.save(update, {"c": file("c")}, {slot(LOCAL): file(name), "own": file("o")})
        store.forget(name)
        store.forget(name)  # the end of a run is heard more than once
    again = NodeStore(tmp_path)
    assert [again.own_state(name) for name in names] == [{}, *({slot(LOCAL): file(name)} for name in names[1:])]
    assert again.needed() == {file(name).digest for name in names[1:]}
    again.save(finished(), {}, {"own": file("o1")})
    assert NodeStore(tmp_path).own_state(names[-1]) == {slot(LOCAL): file(names[-1])}
