"""What a node's operator allows, where it depends on the data; and what a worker is given of its daemon's."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from covey.errors import NoPart, PolicyError
from covey.methods.averaging import Averaging
from covey.spec import ExchangeSection, RoundsSpec, StopSection, TaskSection, TrainingSection, parse_data
from covey.worker.client.confinement import Confinement
from covey.worker.execute.coordinator_ops import initial
from covey.worker.execute.from_spec import load_codec
from covey.worker.execute.limits import check_consent, check_limits, check_privacy, declines_later
from covey.worker.execute.node_ops import train
from covey.worker.jobs.runs import InitialJob
from covey.worker.jobs.training import FilterOrder, TrainJob, TrainLimits
from covey.worker.program.host import Host


def spec(payload="delta", **training):
    exchange = ExchangeSection(payload=payload)
    return RoundsSpec(
        name="r", task=TaskSection(name="digits"), training=TrainingSection(**training), exchange=exchange
    )


@pytest.mark.parametrize(
    ("limits", "run", "examples", "why"),
    [
        (TrainLimits(epochs=2), spec(batch_size=10, local_steps=21), 100, "21 steps.*2 epochs"),
        (TrainLimits(epochs=2), spec(local_epochs=3), 100, "epochs"),
        (TrainLimits(batch_size=8), spec(batch_size=32), 7, "batch of 7 examples"),
        (TrainLimits(examples=64), spec(batch_size=8, local_steps=7), 1000, "56 examples.*64"),
        (TrainLimits(examples=64), spec("gradient", batch_size=32, local_steps=1), 1000, "32 examples.*64"),
        (TrainLimits(examples=64), spec(local_epochs=5), 63, "63 examples.*64"),
    ],
)
def test_a_training_that_asks_for_more_is_declined_before_it_begins(limits, run, examples, why):
    with pytest.raises(PolicyError, match=why):
        check_limits(limits, run, examples)


@pytest.mark.parametrize(
    ("limits", "run", "examples"),
    [
        (TrainLimits(), spec(local_epochs=1000), 1),
        (TrainLimits(epochs=2), spec(batch_size=10, local_steps=20), 100),
        (TrainLimits(epochs=1), spec("gradient", batch_size=32, local_steps=1), 1000),
        (TrainLimits(epochs=1, batch_size=8, examples=64), spec(batch_size=8, local_epochs=1), 64),
        (TrainLimits(batch_size=8), spec(), 0),
    ],
)
def test_what_is_allowed_goes_on(limits, run, examples):
    check_limits(limits, run, examples)


HOST = Host(torch.device("cpu"))


def normed(mode):
    """A run of that mode."""
    run = {"name": "r", "mode": mode, "task": {"name": "tests.unit.worker.worker_tasks:Normed"}}
    return parse_data({**run, "training": {"learning_rate": 0.1, "batch_size": 8, "local_epochs": 1}}).to_json()


@pytest.fixture
def job(tmp_path):
    """A training of the first of two parts."""
    run, base = normed("rounds"), tmp_path / "base"
    layout = initial(InitialJob("run", run, base, True), HOST).layout
    scratch = {part: tmp_path / part for part in ("model", "buffers")}
    return TrainJob("run", run, layout, 1, 0, 2, base, scratch, allow_path=True)


def test_limits_are_held_against_the_part_that_a_newcomer_takes(job):
    """The third node of the roster, where the data are cut into two parts, and the second node is gone."""
    job = replace(job, limits=TrainLimits(examples=24))
    assert train(replace(job, part=1), HOST).examples == 24
    with pytest.raises(NoPart, match="into 2 parts, and this is node 3"):
        train(replace(job, part=2), HOST)
    with pytest.raises(PolicyError, match=r"24 examples; .* fewer than 25"):
        train(replace(job, part=1, limits=TrainLimits(examples=25)), HOST)


@pytest.mark.parametrize("mode", ["rounds", "gossip"])
def test_what_leaves_has_passed_the_operator_s_filters(job, mode):
    """Of a gossip node it is what a step has changed: its model, its peers' models of it, and its mass follow."""
    job = replace(job, spec_json=normed(mode))

    def sent(*filters):
        result = train(replace(job, filters=filters), HOST)
        return result, {name: path.read_bytes() for name, path in job.scratch.items()}

    def norm(content):
        return float(torch.frombuffer(bytearray(content), dtype=torch.float32).norm())

    plain, own = sent()
    result, clipped = sent(FilterOrder("clip-norm", {"most": 0.01}))
    assert plain.filters == ()
    assert result.filters[0].startswith("clip-norm ")
    assert norm(own["model"]) > 0.02
    assert norm(clipped["model"]) == pytest.approx(0.01)
    assert clipped["buffers"] == own["buffers"]
    assert result.metrics == plain.metrics != {}
    assert sent(FilterOrder("tests.unit.worker.worker_tasks:SaysLittle"))[0].metrics == {}
    with pytest.raises(PolicyError, match=r"site's outgoing filter .*Refuses' lets part 'model' not pass: not today"):
        sent(FilterOrder("tests.unit.worker.worker_tasks:Refuses"))


def test_a_worker_sees_nothing_of_the_environment_that_it_does_not_need():
    whole = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "CUDA_VISIBLE_DEVICES": "0",
        "PYTHONPATH": "/tasks",
        "COVEY_STORE": "postgresql://covey:secret@db/covey",
        "COVEY_JOIN": "covey1.token",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "MY_DATA": "/data",
    }
    kept = {"PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES", "PYTHONPATH"}
    assert Confinement().of(whole).keys() == kept
    assert Confinement(environment=("MY_DATA", "ABSENT")).of(whole).keys() == kept | {"MY_DATA"}


@pytest.mark.parametrize(("told", "allowed"), [("noisy", "off"), ("exact", "off"), ("exact", "noisy")])
def test_counts_of_labels_leave_only_as_far_as_the_operator_allows(monkeypatch, told, allowed):
    monkeypatch.setattr(Averaging, "label_counts", told)
    with pytest.raises(PolicyError, match=rf'"{told}".*allows "{allowed}" \(\[policy\] label_counts in node.toml'):
        check_consent(TrainLimits(label_counts=allowed), Averaging())
    check_consent(TrainLimits(label_counts=told), Averaging())
    check_consent(TrainLimits(label_counts="exact"), Averaging())


def private(codec="none", **privacy):
    text = {"unit": "example", "clip": 1.0, "noise": 1.0, "sampling": 0.1, **privacy} if codec == "none" else None
    options = {"epsilon": 0.5, "delta": 1e-5, "clip": 1.0} if codec == "dp-sign" else {}
    return RoundsSpec(
        name="r",
        task=TaskSection(name="digits"),
        training=TrainingSection(local_steps=10),
        exchange=ExchangeSection(codec=codec, options=options),
        privacy=text,
        stop=StopSection(epsilon=6.0) if text else StopSection(),
    )


FLOOR = TrainLimits(max_epsilon=5.0, least_noise=0.9)


@pytest.mark.parametrize(
    ("limits", "run", "before", "why"),
    [
        (FLOOR, spec(), 0, "not private on this node: its nodes add no noise"),
        (TrainLimits(least_noise=0.1), spec(), 0, "not private on this node"),
        (FLOOR, private(unit="node", sampling=1.0), 0, "not private on this node: its nodes add no noise"),
        (FLOOR, private(reproducible=True), 0, "not private on this node: its noise is drawn from the run's seed"),
        (FLOOR, private(noise=0.8), 0, r"multiplier of 0.8; .*none below 0.9 \(\[policy\] least_noise"),
        (FLOOR, private(delta=1e-4), 0, r"delta of 0.0001; .*allows 1e-05 \(\[policy\] max_delta"),
        (FLOOR, private(), 6, r"epsilon = [56]\.\d+ .*after 6 before it; 5 is allowed \(\[policy\] max_epsilon"),
        (TrainLimits(), private(), 30, r"epsilon = 1\d\.\d+ .*after 30 before it; 6 is allowed \(\[stop\] epsilon\)"),
        (TrainLimits(max_epsilon=0.3), private("dp-sign"), 0, r"0.3 is allowed \(\[policy\] max_epsilon"),
    ],
)
def test_a_run_that_spends_more_than_the_operator_allows_is_declined(limits, run, before, why):
    with pytest.raises(PolicyError, match=why):
        check_privacy(limits, run, load_codec(run.exchange), before)


def test_what_the_floor_allows_says_what_it_has_spent():
    run = private()
    first, third = (check_privacy(FLOOR, run, load_codec(run.exchange), before) for before in (0, 2))
    assert 0 < first["privacy/epsilon"][0] < third["privacy/epsilon"][0] < 5.0
    assert third["privacy/delta"] == (1e-5, 1.0)
    assert check_privacy(TrainLimits(), spec(), load_codec(spec().exchange), 0) == {}
    assert check_privacy(FLOOR, private("dp-sign"), load_codec(private("dp-sign").exchange), 0) == {}
    text = declines_later(FLOOR, run, load_codec(run.exchange))
    assert re.fullmatch(
        r"from round [56] of 7 on this node would decline: .* more than 5 \(\[policy\] max_epsilon .*", text
    )
    assert declines_later(TrainLimits(max_epsilon=6.0), run, load_codec(run.exchange)) == ""
    assert declines_later(TrainLimits(), run, load_codec(run.exchange)) == ""
    simulated = private(reproducible=True)
    assert "privacy/simulated-epsilon" in check_privacy(TrainLimits(), simulated, load_codec(simulated.exchange), 0)
