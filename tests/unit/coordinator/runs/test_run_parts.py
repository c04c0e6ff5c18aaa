"""What an active run is made of, each by itself: assignments, commit, evaluation, retention, feedback, preparation."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from covey import messages as msg
from covey.artifact import Artifact, artifact_of_file
from covey.coordinator.runs.assignments import (
    AssignmentInputs,
    assignment,
    evaluates_first,
    evaluation_assignment,
    is_small,
)
from covey.coordinator.runs.facts import RunFacts
from covey.coordinator.runs.retention import Retention
from covey.coordinator.runs.steps.commit import adopt_files, discard_scratch, signed_version
from covey.coordinator.runs.steps.evaluation import NodeMetrics, RunEvaluation, merged_metrics, unevaluated_versions
from covey.coordinator.runs.steps.preparation import expected_nodes, prepare
from covey.coordinator.runs.verdict_feedback import VerdictFeedback
from covey.errors import Conflict, StoreUnavailable, WorkerError
from covey.spec import parse_toml
from covey.testing.store import records as make
from covey.wire.identities.signing import CommitStatement, CommitVerdict
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.steps import StepJob, StepResult
from tests.unit.coordinator.world import FEDERATION

# -- assignments


def test_an_assignment_says_what_the_record_says():
    run, base = make.run_record(layout=make.LAYOUT, parts=3), make.version_record("run-1", 4)
    change = msg.Change(make.artifact("change"), "0" * 64, b"")
    inputs = AssignmentInputs(change, b"all", msg.Feedback("d", True), ("residual",))
    message = assignment(run, base, b"model", 1, 5, 2, inputs, evaluate=True)
    assert (message.run, message.round, message.attempt, message.work) == ("run-1", 5, 2, "train")
    assert (message.version, message.model, message.model_data) == (4, base.artifact, b"model")
    assert (message.roster_index, message.num_partitions, message.evaluate) == (1, 3, True)
    assert (message.change, message.broadcast, message.feedback) == (change, b"all", msg.Feedback("d", True))
    last = evaluation_assignment(run, base, b"", 1, inputs)
    assert (last.work, last.round, last.attempt, last.change) == ("evaluate", 4, 0, change)
    assert (last.broadcast, last.feedback, last.evaluate) == (b"", msg.Feedback(), False)


@pytest.mark.parametrize(("size", "small"), [(0, True), (1 << 20, True), ((1 << 20) + 1, False)])
def test_what_fits_one_chunk_is_small(size, small):
    assert is_small(Artifact("0" * 64, size, b"")) is small


@pytest.mark.parametrize(
    ("where", "every", "version", "first"),
    [
        ("both", 2, 2, True),
        ("both", 2, 3, False),
        ("both", 2, 0, False),
        ("central", 2, 2, False),
        ("nodes", 1, 3, True),
        ("nodes", 0, 3, False),
    ],
)
def test_when_nodes_evaluate_before_they_train(where, every, version, first):
    spec = parse_toml(f'name = "n"\n[task]\nname = "digits"\n[evaluation]\nwhere = "{where}"\nevery = {every}')
    assert evaluates_first(spec, make.version_record("run", version)) is first


# -- commit


@pytest.fixture
def step(world):
    """A job whose model and one of whose two state files were written, and its result."""
    paths = {name: world.files.scratch(8) for name in ("model", "momentum", "unused")}
    for name, path in paths.items():
        path.write_bytes(name.encode().ljust(8))
    state = {name: paths[name] for name in ("momentum", "unused")}
    job = StepJob("run", "", "", 0, {0: world.folder}, (), {}, paths["model"], state)
    written = WrittenFile("momentum", paths["momentum"], artifact_of_file(paths["momentum"]))
    return job, StepResult((), artifact=artifact_of_file(paths["model"]), model_sha256="a" * 64, state=(written,))


async def test_a_version_is_signed_and_chained_to_the_one_before(world, step):
    _, result = step
    base = make.version_record("run", 3)
    verdicts = [CommitVerdict("ada", "0" * 64, "accepted", "", 1.0)]
    version = signed_version(world.services, base, result, verdicts, round=4, metrics={"epsilon": 1.5})
    statement = CommitStatement.from_bytes(version.statement)
    assert (statement.federation, statement.run, statement.round, statement.version) == (FEDERATION, "run", 4, 4)
    assert statement.parent == hashlib.sha256(base.statement).hexdigest()
    assert statement.verdicts == tuple(verdicts)
    assert (version.version, version.parent_sha256, version.metrics) == (4, base.model_sha256, {"epsilon": 1.5})
    assert version.signature == world.services.signer.sign(version.statement)
    assert [part.name for part in version.state] == ["momentum"]


async def test_without_a_file_there_is_no_version(world):
    with pytest.raises(WorkerError):
        signed_version(world.services, make.version_record("run", 0), StepResult(()), [], round=1)


async def test_files_get_their_names_and_what_is_left_over_goes_however_often(world, step):
    job, result = step
    for _ in range(2):
        adopt_files(world.files, job, result)
        discard_scratch(world.files, job, result)
    kept = {result.artifact.digest, result.state[0].artifact.digest}
    assert all(world.files.has(digest) for digest in kept)
    assert not any(path.exists() for path in (job.out, *job.out_state.values()))


async def test_of_a_step_that_makes_no_version_all_files_go(world, step):
    job, result = step
    none = StepResult((), enough=False, state=result.state)
    adopt_files(world.files, job, none)
    discard_scratch(world.files, job, none)
    assert not any(path.exists() for path in (job.out, *job.out_state.values()))


# -- evaluation


def test_metrics_of_nodes_are_merged_by_their_counts():
    ada = {"evaluation/accuracy": (3.0, 4.0), "loss": (1.0, 1.0)}
    parts: list[tuple[str, NodeMetrics]] = [("ada", ada), ("bob", {"evaluation/accuracy": (1.0, 4.0)})]
    assert merged_metrics(parts, "evaluation/") == {"nodes/accuracy": 0.5}
    assert merged_metrics([("ada", {"accuracy": (0.0, 0.0)})], "") == {"nodes/accuracy": "nothing was counted"}


def test_a_metric_that_one_node_lacks_is_that_of_the_others_and_one_that_all_lack_says_why():
    parts: list[tuple[str, NodeMetrics]] = [
        ("ada", {"auc": "one class only", "loss": "no file"}),
        ("bob", {"auc": (1.0, 2.0), "loss": "no disk"}),
    ]
    assert merged_metrics(parts, "") == {"nodes/auc": 0.5, "nodes/loss": "ada: no file (and 1 more)"}


async def test_only_versions_that_are_due_and_kept_are_left_to_be_evaluated(world):
    run = make.start_run(world.record)
    for number in range(1, 6):
        make.play_round(world.record, run, number)
    world.record.record_metrics(run, 2, {}, evaluated=True)
    assert unevaluated_versions(world.record, run, 2, 5) == (4, 5)
    assert unevaluated_versions(world.record, run, 0, 5) == ()


async def test_a_version_whose_file_is_gone_is_evaluated_with_nothing(world):
    run = make.start_run(world.record)
    make.play_round(world.record, run, 1)
    await RunEvaluation(world.services, world.record.run(run), RunFacts(run, "n", "rounds")).evaluate(1)
    assert world.record.version(run, 1).evaluated
    assert not world.worker.done("evaluate")


async def test_what_several_nodes_say_of_the_last_version_is_merged(world):
    run = make.start_run(world.record)
    facts = RunFacts(run, "n", "rounds")
    evaluation = RunEvaluation(world.services, world.record.run(run), facts)
    await evaluation.note_node("ada", 0, {"accuracy": (1.0, 1.0)})
    await evaluation.note_node("bob", 0, {"accuracy": (0.0, 3.0)})
    assert facts.values == world.record.version(run, 0).metrics == {"nodes/accuracy": 0.25}


async def test_what_one_node_lacks_of_them_is_an_event(world):
    run = make.start_run(world.record)
    evaluation = RunEvaluation(world.services, world.record.run(run), RunFacts(run, "n", "rounds"))
    await evaluation.note_node("ada", 0, {"auc": (0.7, 1.0)})
    await evaluation.note_node("bob", 0, {"auc": "it is nan over 1"})
    assert world.record.version(run, 0).metrics == {"nodes/auc": 0.7}
    (event,) = [event for event in world.record.events(run=run) if event.kind == "metric-missing"]
    assert (event.node, event.detail) == ("bob", {"version": 0, "missing": {"auc": "it is nan over 1"}})


# -- retention


class Shelf:
    def __init__(self):
        self.dropped = []

    def release(self, digests):
        self.dropped.extend(digests)


async def test_while_a_backup_is_made_nothing_is_dropped_and_afterwards_all_that_is_not_on_record_again(world):
    shelf, run = Shelf(), make.start_run(world.record)
    retention = Retention(shelf)
    retention.drop(["a"])
    retention.hold()
    retention.drop(["b"])
    with pytest.raises(Conflict):
        retention.hold()
    assert (shelf.dropped, retention.is_held) == (["a"], True)
    again = make.play_round(world.record, run, 1).artifact.digest  # another run may begin with the same model
    retention.drop([again])
    retention.let_go(world.record)
    assert (shelf.dropped, retention.is_held) == (["a", "b"], False)


async def test_what_a_run_needs_stays_whatever_else_had_it_and_goes_with_the_last_that_needs_it(world):
    shelf, run = Shelf(), make.start_run(world.record)
    kept = make.play_round(world.record, run, 1).artifact.digest
    retention = Retention(shelf)
    for name, digest in (("run-1", "layout"), ("run-2", "layout"), ("run-3", kept)):
        retention.need(name, digest)
    retention.drop(["layout"])
    retention.drop_unrecorded(world.record, ["layout", kept, "late"])  # as of an update that came too late
    retention.need_no_more(world.record, "run-1")
    retention.need_no_more(world.record, "run-3")
    assert shelf.dropped == ["late"]
    retention.need_no_more(world.record, "run-2")
    assert shelf.dropped == ["late", "layout"]


async def test_what_a_backup_held_stays_while_the_record_is_away_and_goes_later(world, monkeypatch):
    run, shelf = make.start_run(world.record), Shelf()
    spec = parse_toml('name = "n"\n[task]\nname = "digits"\n[keep]\nversions = 1\nupdates = 1')
    retention = Retention(shelf)
    retention.hold()
    retention.drop(["a"])

    def away():
        raise StoreUnavailable("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(world.record, "referenced_digests", away)
        retention.let_go(world.record)
    assert (shelf.dropped, retention.is_held) == ([], False)
    retention.prune(world.record, run, spec, [])
    assert shelf.dropped == ["a"]


async def test_what_a_run_does_not_keep_is_dropped(world):
    run, shelf = make.start_run(world.record), Shelf()
    versions = [make.play_round(world.record, run, number) for number in range(1, 5)]
    spec = parse_toml('name = "n"\n[task]\nname = "digits"\n[keep]\nversions = 1\nupdates = 1')
    Retention(shelf).prune(world.record, run, spec, [2])
    gone = set(shelf.dropped)
    assert versions[0].artifact.digest in gone
    assert not {versions[1].artifact.digest, versions[3].artifact.digest} & gone


async def test_what_an_update_on_its_way_has_too_is_dropped_later_and_only_if_it_is_not_on_record_then(world):
    run, shelf = make.start_run(world.record), Shelf()
    versions = [make.play_round(world.record, run, number) for number in range(1, 4)]
    digests = [version.artifact.digest for version in versions]
    spec = parse_toml('name = "n"\n[task]\nname = "digits"\n[keep]\nversions = 1\nupdates = 1')
    retention = Retention(shelf)
    retention.in_use = lambda: {digests[0], digests[1]}
    retention.prune(world.record, run, spec, [])
    assert not {*digests} & set(shelf.dropped)
    retention.in_use = lambda: {digests[1]}
    retention.prune(world.record, run, spec, [])
    assert set(digests) & set(shelf.dropped) == {digests[0]}


# -- feedback


async def test_each_node_hears_of_its_newest_update_that_was_decided_on(world):
    run = make.start_run(world.record)
    make.play_round(world.record, run, 1)
    make.play_round(world.record, run, 2, nodes=("ada",))
    feedback = VerdictFeedback.load(world.record, run, make.NODES, 2)
    assert feedback.of("ada") == msg.Feedback(make.sha256("run-1 r2 ada"), True)
    assert feedback.of("bob") == msg.Feedback(make.sha256("run-1 r1 bob"), True)
    assert feedback.of("eve") == msg.Feedback()
    held = make.update_record(run, 3, "bob", verdict="held")
    refused = make.update_record(run, 3, "ada", verdict="rejected")
    feedback.note([held, refused, make.outcome_record(run, 3, "cyd", "declined")])
    assert feedback.of("ada") == msg.Feedback(refused.digest, False)
    assert feedback.of("bob").update == make.sha256("run-1 r1 bob")


# -- preparation


async def test_a_queued_run_gets_its_first_version_and_a_running_one_keeps_it(world):
    queued = world.submit()
    prepared = await prepare(world.services, queued)
    assert (prepared.run.state, prepared.newest.version) == ("running", 0)
    assert world.files.has(prepared.newest.artifact.digest)
    again = await prepare(world.services, world.record.run("run"))
    assert again.newest == prepared.newest
    assert len(world.worker.done("initial")) == 1
    assert prepared.evaluates_centrally
    assert not prepared.evaluates_on_nodes


async def test_nodes_that_are_here_or_were_once_are_expected_from_the_coordinators_start_on(world):
    services = replace(world.services, clock=lambda: 5000.0, started_at=1000.0)
    for name in ("early", "late", "gone", "silent"):
        make.enrol(world.record, make.node_record(name))
    world.record.note_seen({"early": 10.0, "late": 2000.0, "gone": 2000.0, "bob": 10.0})
    world.record.set_node_state("gone", "left")
    world.nodes.connected = {"ada"}  # seen never before, and `silent` was not either
    assert await expected_nodes(services) == {"ada": 5000.0, "bob": 1000.0, "early": 1000.0, "late": 2000.0}
    world.nodes.connected = {"ada", "late"}
    assert (await expected_nodes(services))["late"] == 5000.0
