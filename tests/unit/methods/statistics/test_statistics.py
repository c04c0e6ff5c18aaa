"""What nodes say, what the coordinator makes of it, and what it comes to, against the same of all data together."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from covey.errors import PolicyError, SpecError, TaskError
from covey.figures import Figures, FiguresForm
from covey.layout import Layout
from covey.methods.parts import RunForm
from covey.methods.statistics.answers import SILENT, Numbers, figures_answer, numel, objection_to, ranges_answer
from covey.methods.statistics.combining import grid_of, totals_of
from covey.methods.statistics.method import ANSWER, Statistics
from covey.testing.method_rounds import MethodRounds, NormedExample, spec_of
from covey.testing.methods import MethodConformance
from covey.worker.jobs.training import TrainLimits

K, NODES = 10, 4
FORM = FiguresForm(("age", "dose"), bins=25, labels=3)
COLUMNS = {"columns": ["first"], "min_k": 5, "bins": 8}
TWO: dict[str, Any] = {"rounds": {"count": 2}}


class TestStatistics(MethodConformance):
    name = "statistics"
    options: ClassVar = COLUMNS
    sections: ClassVar = TWO


def data(seed: int) -> list[Numbers]:
    """Of each node two columns, the second with missing values; one node has little of it."""
    source = np.random.default_rng(seed)
    nodes = []
    for node in range(NODES):
        ages = source.normal(50 + node, 10, size := 300 + 50 * node)
        doses = source.exponential(2.0, size)
        doses[: (0, 4, 60, size - 3)[node]] = np.nan
        nodes.append(np.stack([ages, doses]))
    return nodes


def answers_of(nodes: list[Numbers], grid: Numbers, k: int = K) -> list[Numbers]:
    """What they say in the second round; labels are dealt in thirds."""
    counts = [np.bincount(np.arange(len(node[0])) % 3, minlength=3) for node in nodes]
    return [figures_answer(len(n[0]), list(n), c, grid, FORM, k) for n, c in zip(nodes, counts, strict=True)]


def ran(nodes: list[Numbers], k: int = K) -> Figures:
    """Both rounds."""
    grid = grid_of([ranges_answer(len(node[0]), list(node), FORM, k) for node in nodes], FORM, {})
    answers = answers_of(nodes, grid, k)
    assert not any(objection_to(answer, FORM, k) for answer in answers)
    return Figures.of(totals_of(answers, grid, FORM).tolist(), FORM)


def test_with_k_of_one_the_figures_are_those_of_all_data() -> None:
    nodes = data(1)
    figures = ran(nodes, 1)
    assert (figures.nodes, figures.examples) == (NODES, sum(len(n[0]) for n in nodes))
    for at, column in enumerate(figures.columns):
        values = np.concatenate([n[at] for n in nodes])
        present = values[~np.isnan(values)]
        assert (column.count, column.missing, column.hidden) == (len(present), len(values) - len(present), 0)
        assert column.mean == pytest.approx(present.mean(), rel=1e-12)
        assert column.variance == pytest.approx(present.var(), rel=1e-10)
        assert sum(column.cells) == len(present)
    assert figures.labels == tuple(np.bincount(np.concatenate([np.arange(len(n[0])) % 3 for n in nodes])))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 10, 40])
def test_a_quantile_lies_between_its_bounds_whatever_is_hidden(seed: int, k: int) -> None:
    nodes = data(seed)
    figures = ran(nodes, k)
    for at, column in enumerate(figures.columns):
        speaking = nodes if column.nodes == NODES else nodes[:-1]  # the last node is silent of its three doses
        values = np.concatenate([n[at] for n in speaking])
        present = np.sort(values[~np.isnan(values)])
        for q in (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98):
            true, known = present[max(0, int(np.ceil(q * len(present))) - 1)], column.quantile(q)
            assert known is not None
            assert known.least is None or known.least <= true
            assert known.most is None or true <= known.most
    if k == 1:
        return
    doses = figures.columns[1]
    assert (doses.nodes, doses.silent, doses.hides_missing) == (3, 1, 1)
    if k == 10:
        assert doses.mean == pytest.approx(np.nanmean(np.concatenate([n[1] for n in nodes[:3]])), rel=0.05)
    # Hidden ages lie anywhere between the outermost cells that are hidden, and what is beyond them counts as there.
    ages, width = figures.columns[0], figures.columns[0].edges[1] - figures.columns[0].edges[0]
    mean = np.concatenate([n[0] for n in nodes]).clip(ages.edges[0], ages.edges[-1]).mean()
    least, most = (np.average(np.array(ages.edges[:-1]) + width / 2, weights=c) for c in (ages.lowest, ages.highest))
    assert least - width / 2 <= mean <= most + width / 2
    assert least <= ages.mean <= most


def test_no_number_below_k_leaves_a_node_and_none_follows() -> None:
    """Of every column's table, and of the labels'."""
    for node in data(2):
        grid = np.array([[0.0, 100.0], [0.0, 12.0]])
        answer = figures_answer(len(node[0]), list(node), np.array([3, len(node[0]) - 3, 0]), grid, FORM, K)
        counts = np.concatenate([answer[-3:], answer[2:3], answer[7:32], answer[33:34], answer[38:63]])
        assert not ((counts > 0) & (counts < K)).any()
        assert (answer[-3:] == -1).all()
        # What is missing of a column is hidden: its bins must not say it by their sum.
        hidden = answer[38:63] == -1
        assert answer[33] != -1 or hidden.any()


def test_ranges_are_of_k_values_at_least_and_no_value_exactly() -> None:
    source = np.random.default_rng(5)
    values = np.append(source.normal(0, 1, 500), [1e6] * (K - 1))  # fewer than k outliers are not said
    answer = ranges_answer(len(values), [values, np.full(len(values), np.nan)], FORM, K)
    low, high = answer[5:7]
    assert not ({low, high} & set(values.tolist()))
    assert np.sort(values)[0] - 1 < low <= np.sort(values)[K - 1]
    assert np.sort(values)[-K] <= high < 10


ONE = FiguresForm(("age",), 4)


@pytest.mark.parametrize("size", range(K, 2 * K + 3))
def test_a_range_is_said_of_twice_k_values(size: int) -> None:
    values = np.random.default_rng(size).normal(0, 1, size)
    row = ranges_answer(size, [values], ONE, K)[1:7].tolist()
    if size < 2 * K:
        assert row == list(SILENT)  # else it would go from the largest values to the least
    else:
        assert (values <= row[4]).sum() < K <= (values >= row[4]).sum()
        assert (values >= row[5]).sum() < K <= (values <= row[5]).sum()


@pytest.mark.parametrize(
    ("counts", "k"),
    [
        ([3, 20, 21, 200, 200, 200, 200, 200, 200, 22], 10),
        ([60, 3, 15, 70, 80, 16, 17, 90, 85, 75], 10),
        ([500, 1, 2, 500, 1, 6, 500], 10),
        ([9, 1, 300, 0, 300, 0, 300], 10),
        ([2, 5, 0, 6, 0, 40, 7], 5),
    ],
)
def test_whole_numbers_that_are_hidden_do_not_follow(counts: list[int], k: int) -> None:
    """Each hidden count has k values at least with which a node says the very same, though one bin is one number."""
    form = FiguresForm(("age",), len(counts))
    grid = np.array([[-0.5, len(counts) - 0.5]])

    def said(table: NDArray[np.int64]) -> Numbers:
        values = np.repeat(np.arange(len(table), dtype=np.float64), table)
        return figures_answer(len(values), [values], np.zeros(0, np.int64), grid, form, k)

    answer = said(np.array(counts))
    hidden = np.flatnonzero(answer[7:] == -1)
    assert len(hidden) >= 4
    others: dict[int, set[int]] = {int(at): set() for at in hidden}
    source, total = np.random.default_rng(7), sum(np.array(counts)[hidden])
    for _ in range(2000):
        table = np.array(counts)
        table[hidden] = source.multinomial(total, source.dirichlet(np.ones(len(hidden))))
        if (said(table) == answer).all():
            for at in others:
                others[at].add(int(table[at]))
        if min(map(len, others.values())) >= k:
            return
    pytest.fail(f"what follows of hidden counts: {others}")


def test_means_are_exact_where_no_value_is_rare_and_as_a_bin_is_wide_elsewhere() -> None:
    values = np.repeat([1.0, 2.0, 7.0], [K, 5 * K, 3 * K])
    grid, none = np.array([[0.0, 8.0]]), np.zeros(0, np.int64)
    exact = figures_answer(len(values), [values], none, grid, ONE, K)
    assert exact[3:5].tolist() == pytest.approx([values.mean(), values.var() * len(values)])
    apart = np.random.default_rng(4).normal(4.0, 1.0, 2000)
    form = FiguresForm(("age",), 32)
    near = figures_answer(len(apart), [apart], none, grid, form, K)
    assert near[3] != pytest.approx(apart.mean(), rel=1e-6)
    assert near[3] == pytest.approx(apart.mean(), abs=8.0 / 32 / 2)
    assert near[4] == pytest.approx(apart.var() * len(apart), rel=0.05)
    silent = figures_answer(len(apart), [apart], none, np.zeros((1, 2)), ONE, K)[1:7]
    assert silent.tolist() == list(SILENT)


@pytest.mark.parametrize(("same", "said"), [(2, 0.0), (K - 1, 0.0), (K, 1.0)])
def test_a_range_that_is_one_value_is_said_where_k_have_it(same: int, said: float) -> None:
    beside = 1.0 + np.arange(K - 1)
    values = np.concatenate([-beside, np.zeros(same), beside])
    assert ranges_answer(len(values), [values], ONE, K)[1] == said


def test_ranges_that_cannot_be_cut_are_refused() -> None:
    values = np.array([0.0] * 15 + [5e-324] * 15)
    with pytest.raises(TaskError, match="less than 1e-100 apart; give them in another unit"):
        ranges_answer(30, [values], ONE, K)
    answer = ranges_answer(30, [(values > 0).astype(float)], ONE, K)
    assert objection_to(answer, ONE, K) == ""
    answer[5:7] = 0.0, 5e-324
    assert "a range narrower than 1e-100" in objection_to(answer, ONE, K)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([100, 100, 5, 1, 0, 0, 100, 0, 0, 0], "100 values and 100 missing, of 100 examples"),
        ([11, 0, 5, 1, 0, 0, 100, 0, 0, 0], "100 examples in its bins, and 11 values"),
        ([0, 100, 0, 0, 0, 0, -1, -1, -1, -1], ""),
        ([80, 20, 5, 1, 0, 0, 80, 0, 0, 0], ""),
    ],
)
def test_a_column_has_no_more_examples_than_there_are(row: list[float], text: str) -> None:
    objection = objection_to(np.array([100.0, *row]), ONE, K)
    assert objection == (f"column 'age': {text}" if text else "")


@pytest.mark.parametrize(
    ("at", "value", "text"),
    [
        (0, K - 1, "9 examples"),
        (0, 2.5 * K + 0.5, "25.5 examples"),
        (0, 1e300, "a whole number from 10"),
        (1, -3.0, "a weight of -3"),
        (1, 1e9, "a weight of 1e\\+09"),
        (2, 3.0, "a count below 10"),
        (3, 1e200, "a mean of 1e\\+200"),
        (4, -1.0, "squares of -1"),
        (5, 1.0, "a range that ends before it begins"),
        (9, -5.0, "no whole numbers from 0 on"),
        (9, 1e12, "of 300"),
        (9, 4.0, "a count below 10"),
        (-1, -2.0, "labels: counts that are no whole"),
        (-1, 300.0, "labels: 500 examples, of 300"),
    ],
)
def test_what_cannot_be_is_rejected(at: int, value: float, text: str) -> None:
    node = data(1)[0]
    (answer,) = answers_of([node], np.array([[0.0, 100.0], [0.0, 12.0]]))
    assert objection_to(answer, FORM, K) == ""
    answer[at] = value
    assert re.search(text, objection_to(answer, FORM, K))


def test_a_lying_node_costs_its_own_answer_only(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("statistics", COLUMNS, **TWO), tmp_path)
    run.round(spoilt=["n1"])  # not a number
    result = run.round()
    assert [verdict.accepted for verdict in result.verdicts] == [True] * 3
    form = FiguresForm.of(COLUMNS)
    figures = Figures.from_bytes(run.version_state["method/totals"].read_bytes(), form)
    assert (figures.nodes, figures.examples) == (3, 96)
    answer = torch.zeros(numel(form), dtype=torch.float64)
    objection = Statistics(COLUMNS).objection({ANSWER: answer}, RunForm(run.spec, Layout(())))
    assert "0 examples" in objection


def test_the_operator_has_the_last_word(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("statistics", COLUMNS | {"labels": 2}, **TWO), tmp_path)
    with pytest.raises(PolicyError, match=r"\[policy\] min_k in node.toml"):
        run.train("n0", limits=TrainLimits(label_counts="exact"))
    with pytest.raises(PolicyError, match=r"\[policy\] label_counts in node.toml"):
        run.train("n0", limits=TrainLimits(min_k=1))
    with pytest.raises(PolicyError, match="fewer than 33 examples"):  # it has 32: the larger k counts
        run.train("n0", limits=TrainLimits(label_counts="exact", min_k=33))
    told = run.train("n0", evaluate=True)
    assert (told.metrics, told.evaluation, told.steps) == ({}, {}, 0)  # nothing but the answer


class Labelled(NormedExample):
    """Its only column is its labels, of which one is missing."""

    def table(self, dataset: Dataset[Any]) -> dict[str, Any]:
        return {"outcome": [math.nan, *(float(y) for _, y in list(dataset)[1:])]}  # type: ignore[call-overload]


def test_a_column_that_is_the_labels_needs_what_their_counts_need(tmp_path: Path) -> None:
    def ran(labels: int, limits: TrainLimits) -> Any:
        options = {"columns": ["outcome"], "min_k": 5, "bins": 2, "ranges": {"outcome": [-0.5, 1.5]}, "labels": labels}
        spec = spec_of("statistics", options, **TWO, task={"name": f"{__name__}:Labelled"})
        return MethodRounds(spec, tmp_path / f"{labels}-{limits.label_counts}").train("n0", limits=limits)

    for limits in (TrainLimits(min_k=5), TrainLimits(min_k=5, label_counts="noisy")):
        allowed = limits.label_counts
        with pytest.raises(PolicyError, match=rf'\'outcome\' is the labels.*"{allowed}" \(\[policy\] label_counts'):
            ran(0, limits)
    with pytest.raises(PolicyError, match="which this run counts already"):
        ran(2, TrainLimits(min_k=5, label_counts="exact"))
    ran(0, TrainLimits(min_k=5, label_counts="exact"))


def test_a_label_that_nobody_asked_for_is_not_said(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("statistics", COLUMNS | {"labels": 1}, **TWO), tmp_path)
    run.round()
    with pytest.raises(TaskError, match=r"counts the labels from 0 to 0, and there are others here$"):
        run.train("n0")


@pytest.mark.parametrize(
    ("options", "sections", "text"),
    [
        ({"columns": ["first"]}, {"rounds": {"count": 3}}, r"rounds\.count.*write 2"),
        ({"columns": ["first"]}, {**TWO, "evaluation": {"only": True}}, r"evaluation\.only"),
        ({"columns": []}, TWO, r"method\.options\.columns"),
        ({"columns": ["a", "a"]}, TWO, "names one twice"),
        ({"columns": ["a"], "ranges": {"b": [0, 1]}}, TWO, "not in columns"),
        ({"columns": ["a"], "ranges": {"a": [1, 1]}}, TWO, "ends before it begins"),
        ({"columns": ["a"], "ranges": {"a": [0, 5e-324]}}, TWO, "narrower than 1e-100; take another unit"),
        ({"columns": ["a"], "bins": 1 << 20}, TWO, r"method\.options\.bins"),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, options: dict[str, Any], sections: dict[str, Any], text: str
) -> None:
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of("statistics", options, **sections), tmp_path)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("statistics", {"columns": ["frist"]}, **TWO), tmp_path)
    with pytest.raises(TaskError, match=r"no column 'frist' \(method\.options\.columns\); here it has first"):
        run.train("n0")
