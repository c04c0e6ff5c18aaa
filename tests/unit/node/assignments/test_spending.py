"""How much privacy a node has spent: counted before anything is sent, and never had back."""

from dataclasses import replace

import pytest

from covey.artifact import artifact_of
from covey.errors import StoreError
from covey.node.assignments.record.spending import Spending
from covey.node.assignments.record.store import NodeStore
from covey.node.updates import FinishedUpdate
from covey.parts import PartFile
from covey.simulation.files import MemoryStore

MADE = FinishedUpdate(
    "a",
    1,
    "base",
    "digest",
    b"statement",
    b"signature",
    (PartFile("model", "none", artifact_of([b"x"])),),
    private=True,
)


@pytest.mark.parametrize("in_memory", [False, True])
def test_each_private_training_counts_whatever_becomes_of_it(in_memory, tmp_path):
    store = MemoryStore() if in_memory else NodeStore(tmp_path)
    store.save(MADE, {}, {})
    store.save(replace(MADE, phase=2), {}, {})  # of the same training
    store.save(replace(MADE, round=2), {}, {})
    store.save(replace(MADE, round=2), {}, {})  # made again: new noise
    store.save(replace(MADE, round=3, private=False), {}, {})
    store.drop_update("a")
    store.forget("a")
    assert store.private_updates("a") == 3
    assert store.private_updates("b") == 0


def test_the_count_outlasts_the_process_and_the_run(tmp_path):
    store = NodeStore(tmp_path)
    store.save(MADE, {}, {})
    store.forget("a")
    again = NodeStore(tmp_path)
    assert again.private_updates("a") == 1
    again.save(MADE, {}, {})
    assert NodeStore(tmp_path).private_updates("a") == 2


def test_an_update_is_counted_before_it_can_be_offered(tmp_path, monkeypatch):
    store = NodeStore(tmp_path)

    def full(*_):
        raise StoreError("the disk is full")

    monkeypatch.setattr("covey.node.assignments.record.journal.write_durably", full)
    with pytest.raises(StoreError):
        store.save(MADE, {}, {})
    assert NodeStore(tmp_path).private_updates("a") == 1
    monkeypatch.setattr("covey.node.assignments.record.spending.write_durably", full)
    with pytest.raises(StoreError):
        store.save(replace(MADE, round=2), {}, {})
    assert store.finished("a", 2, 1, "base") is None


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_terms_of_a_run_are_those_of_its_first_training(in_memory, tmp_path):
    store = MemoryStore() if in_memory else NodeStore(tmp_path)
    assert store.private_terms("a", "much noise") == "much noise"
    store.save(MADE, {}, {})
    store.forget("a")
    store = store if in_memory else NodeStore(tmp_path)
    assert store.private_terms("a", "little noise") == "much noise"
    assert store.private_terms("b", "little noise") == "little noise"
    assert store.private_updates("a") == 1


@pytest.mark.parametrize("text", ["", "[]", '{"private_updates": 3, "terms": {}}'])
def test_a_damaged_count_is_not_taken_for_none(text, tmp_path):
    (tmp_path / "privacy.json").write_text(text)
    with pytest.raises(StoreError, match=r"privacy.json.*cannot be read.*count from nothing"):
        Spending(tmp_path)
