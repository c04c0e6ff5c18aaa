"""What the coordinator counts, and what it shows at a scrape, without daemons."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from covey.artifact import artifact_of
from covey.coordinator.admin import metrics as counted
from covey.coordinator.admin.gauges import CoordinatorGauges, GaugeSources
from covey.coordinator.admin.metrics import CoordinatorMetrics
from covey.coordinator.admin.operation import Operation
from covey.coordinator.admin.record_snapshot import RecordSnapshot, keep_snapshot, take
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.sessions import Sessions
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.facts import MAX_METRIC_NAME, MAX_METRICS, RunFacts
from covey.coordinator.store_thread import StoreThread
from covey.errors import StoreUnavailable
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.record.contract import EventRecord, RunRecord
from covey.storage.sql.store import open_store
from covey.worker.client.supervisor import WorkerSupervisor


@pytest.fixture
def metrics():
    return CoordinatorMetrics()


@pytest.fixture
async def store(tmp_path):
    store = StoreThread(open_store(f"sqlite:///{tmp_path / 'covey.db'}"))
    yield store
    await store.close()


@pytest.fixture
def sources(metrics, store, tmp_path):
    """What the gauges look at."""
    files = ArtifactFiles(tmp_path / "files")
    files.put(artifact_of([b"7 bytes"]), b"7 bytes")
    members = Members(store)
    metrics.evicted = members.evicted
    return GaugeSources(
        operation=Operation(),
        store=store,
        files=files,
        quota_bytes=None,
        snapshot=RecordSnapshot(),
        sessions=Sessions(),
        members=members,
        runs=ActiveRuns(),
        certificate_expires_at=lambda: 123.0,
    )


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def shown(sources, name, **labels):
    families = list(CoordinatorGauges(sources).collect())
    return {
        tuple(s.labels[key] for key in s.labels if key not in labels): s.value
        for family in families
        for s in family.samples
        if s.name == name and labels.items() <= s.labels.items()
    }


def spent(metrics, node, phase):
    return value(metrics, "covey_node_phase_seconds_count", node=node, phase=phase)


# -- phases of nodes


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(at=100.0)
    monkeypatch.setattr(counted, "time", SimpleNamespace(monotonic=lambda: now.at))
    return now


def test_each_phase_gets_its_time(metrics, clock):
    for at, phase in enumerate(("invited", "queued", "downloading", "training", "training", "uploading", "received")):
        clock.at = 100.0 + at**2
        metrics.entered("r", "a", phase)
    sums = [value(metrics, "covey_node_phase_seconds_sum", node="a", phase=p) for p in counted.NODE_PHASES]
    assert sums == [1.0, 3.0, 5.0, 16.0, 11.0]
    assert [spent(metrics, "a", phase) for phase in counted.NODE_PHASES] == [1.0] * 5


def test_a_node_is_in_a_phase_of_each_run_that_it_works_for(metrics, clock):
    for at, run, phase in ((0, "r", "invited"), (1, "s", "invited"), (3, "r", "training"), (7, "s", "received")):
        clock.at = 100.0 + at
        metrics.entered(run, "a", phase)
    assert value(metrics, "covey_node_phase_seconds_sum", node="a", phase="invited") == 3.0 + 6.0
    assert spent(metrics, "a", "training") is None  # it still trains for the first one


@pytest.mark.parametrize("end", ["received", "lost", "declined", "away", "completed"])
def test_a_late_word_of_progress_begins_nothing(metrics, clock, end):
    for phase in ("invited", end, "uploading", "invited"):
        metrics.entered("r", "a", phase)
    assert spent(metrics, "a", "uploading") is None
    assert spent(metrics, "a", "invited") == 1.0


# -- labels


def test_what_is_known_beforehand_is_there_from_the_start(metrics):
    text = generate_latest(metrics.registry).decode()
    for line in ('covey_runs_total{state="failed"} 0.0', 'covey_rounds_total{outcome="retried"} 0.0'):
        assert line in text


def test_only_final_verdicts_count(metrics):
    metrics.judged([("a", "accepted"), ("a", "held"), ("b", "lost"), ("a", "accepted")])
    assert value(metrics, "covey_updates_total", node="a", verdict="accepted") == 2.0
    assert value(metrics, "covey_updates_total", node="b", verdict="lost") == 1.0
    assert value(metrics, "covey_updates_total", node="a", verdict="held") is None


def test_an_evicted_nodes_series_are_dropped_also_when_they_come_back(metrics, sources):
    for node in ("a", "b"):
        metrics.sessions.labels(node).inc()
        metrics.sent.labels(node).inc()
        metrics.received.labels(node).inc()
        metrics.judged([(node, "accepted")])
        metrics.entered("r", node, "invited")
        metrics.entered("r", node, "received")
    sources.members.drills["a"] = "scaled"
    sources.sessions.open("a", 5.0)
    sources.members.evicted.add("a")
    metrics.registry.register(CoordinatorGauges(sources))
    for _ in range(2):
        text = generate_latest(metrics.registry).decode()
        assert 'node="a"' not in text
        assert 'node="b"' in text
        metrics.judged([("a", "rejected")])  # the machine's last word about it


def test_the_metrics_of_a_run_are_bounded():
    facts = RunFacts("r", "n", "rounds")
    facts.note({f"nodes/{number}-" + "x" * 200: number for number in range(200)})
    assert len(facts.values) == MAX_METRICS
    assert {len(name) for name in facts.values} == {MAX_METRIC_NAME}
    kept = next(iter(facts.values))
    facts.note({kept: 5, "nodes/one more": 6, "text": "no number"})
    assert facts.values[kept] == 5.0
    assert len(facts.values) == MAX_METRICS


def test_what_nodes_name_takes_no_place_from_what_the_coordinator_knows():
    facts = RunFacts("r", "n", "rounds")
    facts.note({f"nodes/{number}": number for number in range(MAX_METRICS)})
    facts.note({"accuracy": 0.5, "nodes/accuracy": 0.4})
    assert facts.values["accuracy"] == 0.5
    assert "nodes/accuracy" not in facts.values


@pytest.mark.parametrize("name", ["\ud800", "nodes/\ud800", "a\nb", "\0"])
def test_names_that_cannot_be_shown_are_not(name):
    facts = RunFacts("r", "n", "rounds")
    facts.note({name: 1.0, "accuracy": 0.5})
    assert facts.values == {"accuracy": 0.5}


# -- the present


def test_nodes_by_state(sources):
    sources.snapshot.nodes = {"a", "b", "c"}
    sources.members.evicted.update({"c", "some-admin"})
    sources.sessions.open("a", 5.0)
    sources.sessions.open("new")
    assert shown(sources, "covey_nodes") == {("connected",): 2.0, ("away",): 1.0, ("evicted",): 1.0}
    assert shown(sources, "covey_node_connected") == {("a",): 1.0, ("b",): 0.0, ("new",): 1.0}
    assert shown(sources, "covey_node_certificate_expiry_timestamp_seconds") == {("a",): 5.0}


@pytest.mark.parametrize(
    ("operation", "state"),
    [
        (Operation(), "running"),
        (Operation(paused=True), "paused"),
        (Operation(draining=True), "draining"),
        (Operation(paused=True, draining=True), "draining"),
    ],
)
def test_the_present_state(sources, operation, state):
    states = shown(replace(sources, operation=operation), "covey_coordinator_state")
    assert [name for (name,), on in states.items() if on] == [state]


def test_all_active_runs_and_the_last_one(sources):
    before = RunFacts("1", "old", "rounds", "rounds", 3, 3)
    first = RunFacts("2", "new", "async", "updates", 20, 4, 9, waiting=True)
    second = RunFacts("3", "newer", "rounds", "rounds", 7, 1)
    first.note({"accuracy": 0.5})
    runs = sources.runs
    runs.active, runs.ended = {facts.run: SimpleNamespace(facts=facts) for facts in (first, second)}, before
    info = {("1", "old", "rounds"): 1.0, ("2", "new", "async"): 1.0, ("3", "newer", "rounds"): 1.0}
    assert shown(sources, "covey_run_info") == info
    assert shown(sources, "covey_run_round") == {("1", "old"): 3.0, ("2", "new"): 4.0, ("3", "newer"): 1.0}
    assert shown(sources, "covey_run_rounds") == {("1", "old"): 3.0, ("3", "newer"): 7.0}
    assert shown(sources, "covey_run_updates") == {("2", "new"): 20.0}
    assert shown(sources, "covey_run_updates_decided") == {("2", "new"): 9.0}
    assert shown(sources, "covey_run_waiting") == {("2", "new"): 1.0, ("3", "newer"): 0.0}
    assert shown(sources, "covey_run_metric", metric="accuracy") == {("2", "new"): 0.5}
    runs.ended = second  # it ends: for a moment it is both
    assert shown(sources, "covey_run_info") == {("2", "new", "async"): 1.0, ("3", "newer", "rounds"): 1.0}


def test_a_quota_is_shown_if_there_is_one(sources):
    assert shown(sources, "covey_files_bytes") == {(): 7.0}
    assert shown(sources, "covey_files_quota_bytes") == {}
    assert shown(replace(sources, quota_bytes=9), "covey_files_quota_bytes") == {(): 9.0}


# -- the store's thread


async def test_calls_are_timed_also_those_that_fail(store, metrics):
    def unavailable():
        time.sleep(0.01)
        raise StoreUnavailable("gone")

    store.on_call = metrics.store_calls.observe
    await store.call(store.store.nodes)
    with pytest.raises(StoreUnavailable):
        await store.call(unavailable)
    assert value(metrics, "covey_store_call_seconds_count") == 2.0
    assert value(metrics, "covey_store_call_seconds_sum") >= 0.01


async def test_the_snapshot_counts_what_was_enrolled_and_what_waits(store):
    for name, role in (("a", "node"), ("boss", "admin")):
        await store.call(store.store.add_event, EventRecord(1.0, "enrolled", node=name, detail={"role": role}))
    await store.call(store.store.add_run, RunRecord("r", "n", "rounds", "{}", 0, "queued", "", 1.0))
    snapshot = await store.call(take, store.store, {"old"})
    assert snapshot == RecordSnapshot({"a", "old"}, 1)


async def test_the_snapshot_outlives_a_database_that_is_away(store, monkeypatch):
    snapshot, asked = RecordSnapshot({"a"}, 2), asyncio.Event()

    async def away(*_):
        asked.set()
        raise StoreUnavailable("gone")

    monkeypatch.setattr(store, "call", away)
    task = asyncio.create_task(keep_snapshot(store, snapshot))
    await asked.wait()
    await asyncio.sleep(0)
    assert not task.done()
    assert snapshot == RecordSnapshot({"a"}, 2)
    task.cancel()


# -- nodes that connect


def test_a_nodes_counters_begin_at_zero_so_that_a_rate_sees_the_first_event(metrics):
    metrics.connected("a")
    assert value(metrics, "covey_node_sessions_total", node="a") == 1.0
    for verdict in ("accepted", "rejected", "declined", "lost", "late"):
        assert value(metrics, "covey_updates_total", node="a", verdict=verdict) == 0.0
    assert value(metrics, "covey_node_received_bytes_total", node="a") == 0.0
    assert value(metrics, "covey_node_phase_seconds_count", node="a", phase="training") == 0.0


# -- workers


async def test_only_a_worker_that_takes_anothers_place_is_a_restart(metrics, monkeypatch, tmp_path):
    workers = []

    async def start(*_, **__):
        workers.append(SimpleNamespace(alive=True, stop=lambda: asyncio.sleep(0)))
        return workers[-1]

    monkeypatch.setattr("covey.worker.client.supervisor.Worker.start", start)
    supervisor = WorkerSupervisor(tmp_path, device="cpu", log_format="console", on_replaced=metrics.worker_restarts.inc)
    await supervisor.start()
    await supervisor.start()
    assert value(metrics, "covey_worker_restarts_total") == 0.0
    workers[-1].alive = False
    await supervisor.start()
    assert value(metrics, "covey_worker_restarts_total") == 1.0
    assert len(workers) == 2
