"""Statistics with noise: how much of it there is, that it is as large as said, and what is made of the answers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from covey.codecs.contract import MessagePrivacy
from covey.errors import PolicyError, SpecError
from covey.figures import Figures, FiguresForm
from covey.learning.task import NodeData
from covey.learning.training import loop
from covey.methods.fedprox import FedProx
from covey.methods.statistics.method import Statistics
from covey.methods.statistics.noise import Noise, noisy_answer, noisy_objection, noisy_totals
from covey.testing.method_rounds import EXAMPLES, MethodRounds, NormedExample, examples, spec_of
from covey.worker.jobs.training import UNBOUNDED, TrainLimits, TrainProgress
from covey.worker.program.host import Host

FORM = FiguresForm(("age", "dose"), bins=8, labels=3)
GRID = np.array([[0.0, 100.0], [0.0, 4.0]])
OPTIONS: dict[str, Any] = {"columns": ["first"], "ranges": {"first": [-4, 4]}, "bins": 8, "epsilon": 2.0}
ONE: dict[str, Any] = {"rounds": {"count": 1}}
BOTH = pytest.mark.parametrize("noise", [Noise(FORM, 2.0, 0.0), Noise(FORM, 2.0, 1e-5)], ids=["laplace", "gaussian"])


def columns(node: int, size: int = 400) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Ages around 50, some beyond the range; of each tenth the dose is missing."""
    source = np.random.default_rng(node)
    ages, doses = source.normal(50, 30, size), source.exponential(1.0, size)
    doses[::10] = np.nan
    return [ages, doses]


def counts(size: int = 400) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.bincount(np.arange(size) % 3, minlength=3)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@BOTH
def test_noise_is_as_large_as_is_said(noise: Noise) -> None:
    """With these keys; of 2,000 draws a deviation is off by 2 % as a rule."""
    drawn = np.concatenate([noise.drawn(key(number), 100) for number in range(20)])
    deviation = noise.scale * (1 if noise.delta else math.sqrt(2))
    assert drawn.std() == pytest.approx(deviation, rel=0.06)
    assert abs(drawn.mean()) < 3 * deviation / math.sqrt(len(drawn))
    inside = 0.6827 if noise.delta else 1 - math.exp(-1)
    assert (np.abs(drawn) < noise.scale).mean() == pytest.approx(inside, abs=0.04)
    assert np.array_equal(noise.drawn(key(1), 100)[:7], noise.drawn(key(1), 7))


@BOTH
def test_one_example_moves_an_answer_by_no_more_than_the_noise_reckons_with(noise: Noise) -> None:
    """The same key twice takes the noise away; counts were rounded, which moves each by less than one."""
    still = dataclasses.replace(noise, epsilon=1e12) if not noise.delta else noise
    norm = 2 if noise.delta else 1
    for place, values in enumerate(([np.nan, np.nan], [1e9, -1e9], [0.0, 2.0], [100.0, 4.0])):
        ages, doses = columns(1)
        ages[0], doses[0] = values
        whole = noisy_answer([ages, doses], counts(), GRID, still, key(place))
        without = [column[1:] for column in (ages, doses)]
        fewer = noisy_answer(without, counts() - np.array([1, 0, 0]), GRID, still, key(place))
        cells = [*range(3, 5), *range(7, 15), *range(17, 19), *range(21, 29), *range(29, 32)]
        missing = [2, 16]
        moved = np.abs(whole - fewer)[[*missing, *cells]]
        assert np.linalg.norm(moved, norm) <= noise.sensitivity + 1e-6, values


@BOTH
def test_what_all_answers_come_to_is_near_the_figures_of_all_data(noise: Noise) -> None:
    nodes = [columns(node) for node in range(10)]
    answers = [noisy_answer(node, counts(), GRID, noise, key(at)) for at, node in enumerate(nodes)]
    assert not any(noisy_objection(answer, noise, 10) for answer in answers)
    figures = Figures.of(noisy_totals(answers, GRID, FORM).tolist(), FORM)
    spread = noise.scale * math.sqrt(2 * len(nodes))
    for at, (low, high) in enumerate(GRID):
        values = np.concatenate([node[at] for node in nodes])
        present, column = np.clip(values[~np.isnan(values)], low, high), figures.columns[at]
        half, tolerance = (high - low) / 2, 5 * spread / len(present)
        assert column.count + column.missing == figures.examples == len(values)
        assert abs(column.missing - np.isnan(values).sum()) < 5 * spread
        assert column.mean == pytest.approx(present.mean(), abs=half * tolerance)
        assert column.variance == pytest.approx(present.var(), abs=3 * half**2 * tolerance)
        edges = np.linspace(low, high, FORM.bins + 1)
        assert np.abs(np.array(column.cells) - np.histogram(present, edges)[0]).max() < 5 * spread
        median = column.quantile(0.5)
        assert median is not None
        assert abs(median.value - np.median(present)) < (high - low) / FORM.bins
    assert figures.labels == pytest.approx(counts() * len(nodes), abs=5 * spread)


def test_numbers_that_cannot_be_are_refused() -> None:
    noise = Noise(FORM, 2.0, 0.0)
    good = noisy_answer(columns(1), counts(), GRID, noise, key(1))
    for place, value, text in (
        (0, 3, "3 examples; a whole number from 10"),
        (1, 1e5, "100000 values and"),
        (3, 1e6, "cannot come to"),
        (6, 4.0, "a range, which this run asks nobody"),
        (7, 0.5, "column 'age': numbers"),
        (8, -1e6, "column 'age': numbers"),
        (31, 1e6, "labels: numbers"),
    ):
        bad = good.copy()
        bad[place] = value
        assert text in noisy_objection(bad, noise, 10)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ranges": {}}, r"with epsilon, ranges needs \[low, high\] of 'first'"),
        ({"epsilon": None, "delta": 1e-5}, "give epsilon, or leave them out"),
        ({"epsilon": 0}, "greater than 0"),
    ],
)
def test_noise_that_nobody_could_draw_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        Statistics(OPTIONS | options)


def test_a_run_with_noise_has_one_round_and_accounts_for_it(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"rounds\.count: .* with noise asks once; write 1"):
        MethodRounds(spec_of("statistics", OPTIONS, rounds={"count": 2}), tmp_path / "two").round()
    rounds = MethodRounds(spec_of("statistics", OPTIONS, **ONE), tmp_path / "run")
    assert rounds.description.privacy is not None
    assert (rounds.description.privacy.epsilon, rounds.description.privacy.rounds) == (2.0, 1)
    assert "has spent epsilon = 2 (delta = 0) for each example of a node" in " ".join(rounds.description.notes)
    done = rounds.round()
    assert done.metrics["privacy/epsilon"] == (2.0, 1.0)
    again = MethodRounds(spec_of("statistics", OPTIONS, **ONE), tmp_path / "again").round()
    assert again.model_sha256 == done.model_sha256
    assert [file.part.artifact.digest for file in again.state] != [file.part.artifact.digest for file in done.state]


def test_noise_of_the_seed_is_the_same_again_and_no_privacy(tmp_path: Path) -> None:
    spec = spec_of("statistics", OPTIONS | {"reproducible": True}, **ONE)
    made = [MethodRounds(spec, tmp_path / name) for name in ("one", "two")]
    first, second = (rounds.round() for rounds in made)
    assert first.metrics.keys() >= {"privacy/simulated-epsilon"}
    assert [file.part.artifact.digest for file in first.state] == [file.part.artifact.digest for file in second.state]
    assert "so that it is not private" in " ".join(made[0].description.notes)


def test_the_operator_says_what_may_be_spent(tmp_path: Path) -> None:
    rounds = MethodRounds(spec_of("statistics", OPTIONS | {"labels": 2}, **ONE), tmp_path / "run")
    allowed = TrainLimits(max_epsilon=2.0, label_counts="noisy", min_k=10)
    for limits, before, text in (
        (TrainLimits(min_k=10, label_counts="noisy"), 0, r"may spend .\[policy\] max_epsilon"),
        (replace(allowed, label_counts="off"), 0, "how many examples of each label"),
        (replace(allowed, max_epsilon=1.9), 0, "would have spent epsilon = 2 .* 1.9 is allowed"),
        (replace(allowed, min_k=0), 0, r"of how few examples something may be told .\[policy\] min_k"),
        (replace(allowed, min_k=40), 0, "fewer than 40 examples"),
        (allowed, 1, "would have spent epsilon = 4 .*, after 1 before it"),
    ):
        with pytest.raises(PolicyError, match=text):
            rounds.train("n0", limits=limits, private_before=before)
    assert rounds.train("n0", limits=allowed).private
    seeded = MethodRounds(spec_of("statistics", OPTIONS | {"reproducible": True}, **ONE), tmp_path / "seeded")
    with pytest.raises(PolicyError, match="its noise is drawn from the run's seed"):
        seeded.train("n0", limits=allowed)
    assert not seeded.train("n0").private


EXACT: dict[str, Any] = {"columns": ["first"], "min_k": 1}


@pytest.mark.parametrize("changed", [{"exchange": {"payload": "gradient"}}, {"training": {"local_first": 1}}])
@pytest.mark.parametrize(("options", "count"), [(OPTIONS, 1), (EXACT, 2)])
def test_whatever_a_run_asks_for_no_loss_leaves_with_statistics(
    tmp_path: Path, options: dict[str, Any], count: int, changed: dict[str, Any]
) -> None:
    """A hostile coordinator's specification, that no honest one would accept."""
    spec = spec_of("statistics", options, rounds={"count": count})
    rounds, given = MethodRounds(spec, tmp_path / "run"), json.loads(spec.to_json())
    changed = {"training": {"local_epochs": None, "local_steps": 1}, **changed}
    hostile = json.dumps({**given, **{name: {**given[name], **keys} for name, keys in changed.items()}})
    limits = TrainLimits(min_k=10, max_epsilon=2.0 if "epsilon" in options else UNBOUNDED)
    result = rounds.train("n0", spec_json=hostile, limits=limits)
    assert (dict(result.metrics), result.steps, dict(result.evaluation)) == ({}, 0, {})
    assert [part.name for part in result.parts] == ["answer"]
    assert result.own_state == (), "nothing of the model is trained, so there is nothing to keep"


def test_a_method_with_noise_tells_no_metrics_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it trains."""
    monkeypatch.setattr(loop, "PROGRESS_INTERVAL_S", 0.0)
    told: list[TrainProgress] = []
    host = Host(torch.device("cpu"), report=lambda progress: told.append(cast(TrainProgress, progress)))
    for is_noisy in (False, True):
        if is_noisy:
            monkeypatch.setattr(FedProx, "privacy", MessagePrivacy(1.0, 0.0, "laplace", 1.0))
        rounds = MethodRounds(spec_of("fedprox"), tmp_path / str(is_noisy), host=host)
        result = rounds.train("n0", evaluate=True)
        assert [bool(metrics) for metrics in (result.metrics, result.evaluation)] == [not is_noisy] * 2
        assert math.isnan(told[-1].loss) == is_noisy
        assert bool(rounds.evaluate("n0")) != is_noisy


def test_a_part_of_the_model_that_nobody_trains_is_not_trained_first(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"training": {"local_steps": 3, "local_first": 1}, **ONE}
    with pytest.raises(SpecError, match=r"training\.local_first: 'statistics' trains nothing"):
        MethodRounds(spec_of("statistics", OPTIONS, **sections), tmp_path)


class OneIsOdd(NormedExample):
    """One example of the first node has another label, or a value that is far too large."""

    kind = ""

    def train_data(self, data: NodeData) -> TensorDataset:
        """As it was, but for that."""
        x, y = (tensor.clone() for tensor in examples(EXAMPLES, 1).tensors)
        if OneIsOdd.kind == "label":
            y[:] = y.where(torch.arange(EXAMPLES) > 0, torch.tensor(5))
        return TensorDataset(x, y)

    def table(self, dataset: Dataset[Any]) -> Mapping[str, Any]:
        """The first feature, or what is as large as no number should be."""
        first: list[float] = list(super().table(dataset)["first"])
        return {"first": [-1e200, *first[1:]] if OneIsOdd.kind == "value" else first}


@pytest.mark.parametrize("kind", ["", "label", "value"])
def test_a_node_answers_whether_or_not_an_example_is_odd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A node that declined just then would tell of one example, without any noise."""
    monkeypatch.setattr(OneIsOdd, "kind", kind)
    spec = spec_of("statistics", OPTIONS | {"labels": 2}, task={"name": f"{__name__}:OneIsOdd"}, **ONE)
    rounds = MethodRounds(spec, tmp_path, nodes=1)
    limits = TrainLimits(min_k=10, max_epsilon=2.0, label_counts="noisy")
    assert rounds.train("n0", limits=limits).examples == EXAMPLES
    assert [verdict.accepted for verdict in rounds.round().verdicts] == [True]
