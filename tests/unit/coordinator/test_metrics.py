"""What the coordinator counts, and what it shows at a scrape, without daemons."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from covey.coordinator.admin import metrics as counted
from covey.coordinator.admin.gauges import CoordinatorGauges
from covey.coordinator.admin.metrics import MAX_METRIC_NAME, MAX_METRICS, CoordinatorMetrics, RunFacts
from covey.coordinator.admin.record_snapshot import Census, keep_census, take
from covey.coordinator.config import CoordinatorConfig
from covey.coordinator.environment import StoreThread
from covey.coordinator.modes.rounds.events import RecordOutcome
from covey.coordinator.modes.rounds.mode import RunRunner
from covey.coordinator.nodes.service import CoordinatorService
from covey.coordinator.nodes.sessions import Sessions
from covey.errors import StoreUnavailable
from covey.protos import coordinator_pb2 as pb
from covey.storage.record.contract import EventRecord, RunRecord
from covey.storage.sql.store import open_store
from covey.testing.store import records as make
from covey.worker.client.supervisor import WorkerKeeper


@pytest.fixture
def metrics():
    return CoordinatorMetrics()


@pytest.fixture
def env(metrics):
    """What the gauges look at."""
    return SimpleNamespace(
        metrics=metrics,
        evicted=metrics.evicted,
        state="running",
        store=SimpleNamespace(up=True),
        census=Census(),
        files=SimpleNamespace(bytes_used=7),
        config=CoordinatorConfig(data_dir=None),
        sessions=Sessions(),
        drills={},
        current=None,
    )


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def shown(env, name, **labels):
    families = list(CoordinatorGauges(env, lambda: 123.0).collect())
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
    for at, phase in enumerate(("invited", "downloading", "training", "training", "uploading", "received")):
        clock.at = 100.0 + at**2
        metrics.entered("a", phase)
    sums = [value(metrics, "covey_node_phase_seconds_sum", node="a", phase=p) for p in counted.NODE_PHASES]
    assert sums == [1.0, 3.0, 12.0, 9.0]
    assert [spent(metrics, "a", phase) for phase in counted.NODE_PHASES] == [1.0] * 4


@pytest.mark.parametrize("end", ["received", "lost", "declined", "away", "completed"])
def test_a_late_word_of_progress_begins_nothing(metrics, clock, end):
    for phase in ("invited", end, "uploading", "invited"):
        metrics.entered("a", phase)
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


def test_an_evicted_nodes_series_are_dropped_also_when_they_come_back(metrics, env):
    for node in ("a", "b"):
        metrics.sessions.labels(node).inc()
        metrics.sent.labels(node).inc()
        metrics.received.labels(node).inc()
        metrics.judged([(node, "accepted")])
        metrics.entered(node, "invited")
        metrics.entered(node, "received")
    env.drills["a"] = "scaled"
    env.sessions.open("a", 5.0)
    env.evicted.add("a")
    metrics.registry.register(CoordinatorGauges(env, lambda: 0.0))
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
def test_names_that_cannot_be_shown_are_not(env, name):
    facts = RunFacts("r", "n", "rounds")
    facts.note({name: 1.0, "accuracy": 0.5})
    assert facts.values == {"accuracy": 0.5}


# -- evaluations of nodes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"accuracy":[1,2]}', {"accuracy": (1.0, 2.0)}),
        (b"{}", {}),
        (b'{"\\ud800":[1,2]}', {}),
        (b'{"a\\nb":[1,2]}', {}),
        (b'{"accuracy":[1' + 400 * b"0" + b",2]}", {}),
        (b"[" * 100_000, {}),
        (b'{"accuracy":[NaN,2],"loss":[3,4]}', {"loss": (3.0, 4.0)}),
    ],
)
async def test_what_nodes_say_of_the_last_version(text, expected):
    got = []

    async def node_evaluated(*said):
        got.append(said)

    runner = SimpleNamespace(run=SimpleNamespace(run="r"), node_evaluated=node_evaluated)
    service = CoordinatorService(SimpleNamespace(current=runner), None)
    message = pb.NodeMessage(evaluation=pb.Evaluation(run="r", version=3, metrics=text))
    await service.dispatch(SimpleNamespace(node="a"), message)
    assert got == [("a", 3, expected)]


# -- verdicts


@pytest.fixture
async def runner(store, metrics):
    """A runner whose round 1 is open."""
    run = make.start_run(store.store)
    store.store.open_round(make.round_record(run, 1))
    env = SimpleNamespace(store=store, metrics=metrics, now=time.time)
    return RunRunner(env, store.store.run(run))


async def test_an_update_that_is_on_record_is_not_lost_too(runner, store, metrics):
    """It came in at the deadline: the machine has not heard of it when it gives the node up."""
    run = runner.run.run
    store.store.record_update(make.update_record(run, 1, "ada"))
    for node in ("ada", "bob"):
        await runner._do(RecordOutcome(node, 1, "lost", "no answer"))
    assert [(u.node, u.verdict) for u in store.store.updates(run, 1)] == [("ada", "received"), ("bob", "lost")]
    assert value(metrics, "covey_updates_total", node="ada", verdict="lost") is None
    assert value(metrics, "covey_updates_total", node="bob", verdict="lost") == 1.0
    assert runner.progress.keys() == {"bob"}
    await runner._do(RecordOutcome("eve", 9, "lost", "of a round that is not on record"))
    assert value(metrics, "covey_updates_total", node="eve", verdict="lost") is None


# -- the present


def test_nodes_by_state(env):
    env.census = Census({"a", "b", "c"})
    env.evicted |= {"c", "some-admin"}
    env.sessions.open("a", 5.0)
    env.sessions.open("new")
    assert shown(env, "covey_nodes") == {("connected",): 2.0, ("away",): 1.0, ("evicted",): 1.0}
    assert shown(env, "covey_node_connected") == {("a",): 1.0, ("b",): 0.0, ("new",): 1.0}
    assert shown(env, "covey_node_certificate_expiry_timestamp_seconds") == {("a",): 5.0}


@pytest.mark.parametrize("state", ["running", "paused", "draining"])
def test_the_present_state(env, state):
    env.state = state
    assert [name for (name,), on in shown(env, "covey_coordinator_state").items() if on] == [state]


def test_the_present_run_and_the_last_one(env, metrics):
    before, now = RunFacts("1", "old", "rounds", 3, 3), RunFacts("2", "new", "async", 20, 4, 9, waiting=True)
    now.note({"accuracy": 0.5})
    metrics.ended, env.current = before, SimpleNamespace(facts=now)
    assert shown(env, "covey_run_info") == {("1", "old", "rounds"): 1.0, ("2", "new", "async"): 1.0}
    assert shown(env, "covey_run_round") == {("1", "old"): 3.0, ("2", "new"): 4.0}
    assert shown(env, "covey_run_rounds") == {("1", "old"): 3.0}
    assert shown(env, "covey_run_updates_decided") == {("2", "new"): 9.0}
    assert shown(env, "covey_run_waiting") == {("2", "new"): 1.0}
    assert shown(env, "covey_run_metric", metric="accuracy") == {("2", "new"): 0.5}
    metrics.ended = now  # it ends: for a moment it is both
    assert shown(env, "covey_run_info") == {("2", "new", "async"): 1.0}


def test_a_quota_is_shown_if_there_is_one(env):
    assert shown(env, "covey_files_bytes") == {(): 7.0}
    assert shown(env, "covey_files_quota_bytes") == {}
    env.config = CoordinatorConfig(data_dir=None, quota_bytes=9)
    assert shown(env, "covey_files_quota_bytes") == {(): 9.0}


# -- the store's thread


@pytest.fixture
async def store(tmp_path):
    store = StoreThread(open_store(f"sqlite:///{tmp_path / 'covey.db'}"))
    yield store
    await store.close()


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


async def test_the_census_counts_what_was_enrolled_and_what_waits(store):
    for name, role in (("a", "node"), ("boss", "admin")):
        await store.call(store.store.add_event, EventRecord(1.0, "enrolled", node=name, detail={"role": role}))
    await store.call(store.store.add_run, RunRecord("r", "n", "rounds", "{}", 0, "queued", "", 1.0))
    census = await store.call(take, store.store, {"old"})
    assert census == Census({"a", "old"}, 1)


async def test_the_census_outlives_a_database_that_is_away(store):
    env = SimpleNamespace(store=SimpleNamespace(store=store.store), census=Census({"a"}, 2))
    asked = asyncio.Event()

    async def away(*_):
        asked.set()
        raise StoreUnavailable("gone")

    env.store.call = away
    task = asyncio.create_task(keep_census(env))
    await asked.wait()
    await asyncio.sleep(0)
    assert not task.done()
    assert env.census == Census({"a"}, 2)
    task.cancel()


# -- nodes that connect


def test_a_nodes_counters_begin_at_zero_so_that_a_rate_sees_the_first_event(metrics):
    metrics.connected("a")
    assert value(metrics, "covey_node_sessions_total", node="a") == 1.0
    for verdict in ("accepted", "rejected", "declined", "lost"):
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
    keeper = WorkerKeeper(tmp_path, device="cpu", log_format="console", on_replaced=metrics.worker_restarts.inc)
    await keeper.start()
    await keeper.start()
    assert value(metrics, "covey_worker_restarts_total") == 0.0
    workers[-1].alive = False
    await keeper.start()
    assert value(metrics, "covey_worker_restarts_total") == 1.0
    assert len(workers) == 2
