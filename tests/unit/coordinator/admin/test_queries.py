"""The read model, on a real store: pages that fit, and what comes out of all pages together."""

from __future__ import annotations

import pytest

from covey.coordinator.admin import queries as module
from covey.coordinator.admin import views
from covey.coordinator.admin.pages import MAX_PAGE, MAX_PAGE_BYTES, fitting, page_size
from covey.coordinator.admin.queries import BEST, Queries
from covey.errors import NotFound
from covey.protos import admin_pb2 as pb
from covey.storage.record.contract import EventRecord


@pytest.fixture
def queries(recorder):
    return Queries(recorder.store, lambda record: views.node_view(record, False))


def everything(ask, start, items):
    """All entries, page by page, and how many pages there were."""
    found, pages, token = [], 0, start
    while True:
        reply = ask(token)
        found += getattr(reply, items)
        pages += 1
        if not reply.next:
            return found, pages
        token = reply.next


def test_a_page_has_at_most_so_many_entries_and_says_whether_there_are_more():
    rounds = [pb.Round(round=number) for number in range(1, 6)]
    assert fitting(iter(rounds), 5) == (rounds, False)
    assert fitting(iter(rounds), 3) == (rounds[:3], True)
    assert fitting(iter([]), 3) == ([], False)


def test_a_page_is_cut_where_its_message_would_be_too_large_but_never_empty():
    reason = "x" * (MAX_PAGE_BYTES // 3)
    rounds = [pb.Round(round=number, reason=reason) for number in range(5)]
    assert fitting(iter(rounds), 5) == (rounds[:2], True)
    huge = [pb.Round(reason="x" * (2 * MAX_PAGE_BYTES)), pb.Round()]
    assert fitting(iter(huge), 5) == (huge[:1], True)


def test_no_page_is_larger_than_the_services_own_limit():
    assert [page_size(0), page_size(7), page_size(10 * MAX_PAGE), page_size(0, 100)] == [MAX_PAGE, 7, MAX_PAGE, 100]


def test_runs_come_newest_first_and_page_by_page(recorder, queries):
    for number in range(5):
        recorder.run(f"run-{number}", rounds=number)
    found, pages = everything(lambda before: queries.runs(2, before), "", "runs")
    assert [(run.run, run.rounds_committed) for run in found] == [(f"run-{n}", n) for n in (4, 3, 2, 1, 0)]
    assert pages == 3
    assert [run.run for run in queries.runs(2, "run-2").runs] == ["run-1", "run-0"]
    assert queries.run("name-of-run-3").model_sha256 == recorder.version("run-3", 3).model_sha256
    assert queries.run("run-3").rounds == 20


def test_who_sees_few_runs_has_the_others_read_in_large_pages(recorder, queries, monkeypatch):
    for number in range(12):
        recorder.run(f"run-{number:02}", rounds=0)
    asked, read = [], recorder.store.runs

    def runs(**given):
        asked.append(given["limit"])
        return read(**given)

    monkeypatch.setattr(recorder.store, "runs", runs)
    assert [run.run for run in queries.runs(1, sees=lambda run: run.run == "run-00").runs] == ["run-00"]
    assert asked == [2, module.RUNS, module.RUNS], "the first page, all others, and none"


def test_a_run_shows_the_newest_metrics_there_are(recorder, queries):
    recorder.run("run", rounds=3)
    recorder.store.record_metrics("run", 1, {"accuracy": 0.5}, evaluated=True)
    recorder.store.record_metrics("run", 2, {"accuracy": 0.75}, evaluated=True)
    assert queries.run("run").metrics == '{"accuracy": 0.75}'


def test_rounds_come_in_order_and_page_by_page(recorder, queries):
    recorder.run("run", rounds=7)
    found, pages = everything(lambda after: queries.rounds("name-of-run", after, 3), 0, "rounds")
    assert [item.round for item in found] == list(range(1, 8))
    assert pages == 3
    newest = queries.rounds("run", 0, 3, newest=True)
    assert ([item.round for item in newest.rounds], newest.next) == ([5, 6, 7], 0)
    assert [item.round for item in queries.rounds("run", 6, 3, newest=True).rounds] == [7]
    with pytest.raises(NotFound):
        queries.rounds("no-such")


def test_a_round_with_many_nodes_comes_in_pages_of_updates(recorder, queries):
    nodes = [f"n{number:03}" for number in range(25)]
    recorder.enrol(*nodes)
    recorder.run("run", rounds=1, nodes=nodes)
    found, pages = everything(lambda after: queries.round("run", 1, after, 10), "", "updates")
    assert [update.node for update in found] == nodes
    assert pages == 3
    assert queries.round("run", 1).version.version == 1


def test_the_best_version_is_found_among_all_that_are_kept(recorder, queries, monkeypatch):
    monkeypatch.setattr(module, "SCANNED", 2)
    recorder.run("run", rounds=6)
    for number in range(1, 7):
        recorder.store.record_metrics("run", number, {"accuracy": 0.9 if number == 3 else 0.1}, evaluated=True)
    assert queries.version("run", BEST).version == 3
    assert queries.version("run", -1).version == 6
    assert queries.version("run", 2).version == 2


def test_all_that_is_signed_comes_in_messages_of_a_bounded_size(recorder, queries, monkeypatch):
    recorder.run("run", rounds=5)
    whole = list(queries.signed("run", b"key"))
    monkeypatch.setattr(module, "SCANNED", 3)
    paged = list(queries.signed("run", b"key"))
    assert len(paged) > len(whole)
    assert all(len(message.commits) + len(message.updates) <= 3 for message in paged)
    assert merged(paged) == merged(whole)
    found = merged(paged)
    assert found.coordinator_key == b"key"
    assert [commit.version for commit in found.commits] == [1, 2, 3, 4, 5]
    assert [(u.round, u.node, u.base_version) for u in found.updates] == [
        (number, node, number - 1) for number in range(1, 6) for node in recorder.NODES
    ]
    assert found.updates[0].signing_key == b"ada".ljust(32)


def merged(messages):
    whole = pb.AuditReply()
    for message in messages:
        whole.MergeFrom(message)
    return whole


def test_nodes_come_by_name_and_page_by_page(recorder, queries):
    recorder.enrol("cyd")
    found, pages = everything(lambda after: queries.nodes(after, 2), "", "nodes")
    assert [node.node for node in found] == ["ada", "bob", "cyd"]
    assert pages == 2


def test_events_come_newest_first_and_page_by_page(recorder, queries):
    for number in range(5):
        recorder.store.add_event(EventRecord(float(number), "tried", node="ada" if number % 2 else "bob"))
    found, pages = everything(lambda before: queries.events(before=before, limit=2), 0, "events")
    assert [event.at for event in found if event.kind == "tried"] == [4.0, 3.0, 2.0, 1.0, 0.0]
    assert pages == 3
    assert [event.at for event in queries.events(node="ada").events if event.kind == "tried"] == [3.0, 1.0]
    assert [event.at for event in queries.node("ada").events] == [3.0, 1.0]


def test_a_version_that_is_not_there_is_refused_with_those_that_are(recorder, queries):
    recorder.run("run-1", rounds=5)
    with pytest.raises(NotFound, match="run run-1 has no version 99; it has 0 to 5"):
        queries.version("run-1", 99)
    assert queries.kept_version("run-1", 3).version == 3
    recorder.store.prune("run-1", versions=2, updates=1, metric="", goal="max", pinned=(0, 1))
    with pytest.raises(
        NotFound, match=r"version 3 of run run-1 is no longer kept; choose another one: 0 to 1, 4 to 5 "
    ):
        queries.kept_version("run-1", 3)
