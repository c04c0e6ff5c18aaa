from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from benchmarks.methods import (
    block_momentum,
    codistillation,
    conflicting_labels,
    dampening,
    dq_sgd,
    matrix,
    representations,
    stochastic_sign,
)
from benchmarks.methods.__main__ import PARTS, main
from benchmarks.methods.cases import Case, Interval, better, difference, interval, table, values
from benchmarks.methods.data import Batches, Digits, by_label, iid, one_label
from benchmarks.methods.network import Network
from benchmarks.methods.page import replaced
from benchmarks.methods.pool import Record, part_module
from covey.plugins import installed

MODULES = (
    matrix,
    stochastic_sign,
    dq_sgd,
    dampening,
    block_momentum,
    representations,
    conflicting_labels,
    codistillation,
)


# -- statistics


def test_the_interval_is_students():
    found = interval([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, round(found.half, 3)) == (2.5, 2.054)  # 3.182 x 1.29099 / 2
    assert str(found) == "2.5 ± 2.1"
    assert str(interval([90.0])) == "90.0"
    assert str(interval([90.0, math.nan])) == "x"


def test_differences_are_paired_by_seed():
    outcomes = {
        Case("s", method, seed): {"accuracy": value + seed}
        for seed in (2, 0, 1)
        for method, value in (("a", 11.0), ("b", 10.0))
    }
    assert values(outcomes, "s", "a") == [11.0, 12.0, 13.0]
    assert difference(outcomes, "s", "a", "b") == Interval(1.0, 0.0)


@pytest.mark.parametrize(
    ("found", "least", "verdict"),
    [
        (Interval(2, 1), 0, "reproduced"),
        (Interval(-2, 1), 0, "not reproduced"),
        (Interval(0.5, 1), 0, "undecided"),
        (Interval(-0.2, 0.05), -0.3, "reproduced"),
        (Interval(2, math.inf), 0, "undecided"),
        (Interval(math.nan, 1), 0, "undecided"),
    ],
)
def test_verdicts_follow_the_interval(found, least, verdict):
    assert better(found, least) == verdict


def test_a_table_is_markdown():
    assert table(["a", "b"], [[1, 2]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


# -- data


def digits(n=200):
    generator = torch.Generator().manual_seed(1)
    return Digits(torch.rand(n, 784, generator=generator), torch.randint(0, 10, (n,), generator=generator))


@pytest.mark.parametrize("split", [by_label, one_label, lambda data, nodes: iid(data, nodes, 3)])
def test_every_example_is_in_one_part(split):
    data = digits()
    parts = split(data, 20)
    assert len(parts) == 20
    assert sorted(torch.cat(parts).tolist()) == list(range(len(data)))


def test_label_splits_have_few_labels():
    data = digits(2000)
    assert all(len(data.y[part].unique()) == 1 for part in one_label(data, 31))
    assert all(len(data.y[part].unique()) <= 2 for part in by_label(data, 25))


def test_batches_come_from_the_nodes_own_parts_and_are_the_same_again():
    data = digits()
    parts = one_label(data, 10)
    first, again = (Batches(data, parts, 4, 7) for _ in range(2))
    for _ in range(3):
        (x, y), (same, _) = first.draw(), again.draw()
        assert x.shape == (10, 4, 784)
        assert torch.equal(x, same)
        assert torch.equal(y, torch.arange(10)[:, None].expand(10, 4))
    assert torch.equal(first.draw_of(3)[1], torch.full((1, 4), 3))


# -- the network


def automatic(network, parameters, x, y):
    """One node's gradient, by torch."""
    p = parameters.clone().requires_grad_()
    w1, b1, w2, b2 = torch.split(p, [784 * network.hidden, network.hidden, 10 * network.hidden, 10])
    logits = torch.relu(x @ w1.view(-1, 784).T + b1) @ w2.view(10, -1).T + b2
    return torch.autograd.grad(functional.cross_entropy(logits, y), p)[0]


def test_gradients_of_all_nodes_are_those_of_torch():
    network, data = Network(5), digits(24)
    x, y = data.x.view(4, 6, 784), data.y.view(4, 6)
    own = torch.stack([network.initial(seed) for seed in range(4)])
    shared, separate = network.gradients(own[0], x, y), network.gradients(own, x, y)
    for i in range(4):
        torch.testing.assert_close(shared[i], automatic(network, own[0], x[i], y[i]), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(separate[i], automatic(network, own[i], x[i], y[i]), rtol=1e-4, atol=1e-6)


def test_the_network_is_as_large_as_its_layout():
    network = Network(5)
    assert network.d == len(network.initial(0)) == network.layout.numel
    assert math.isnan(network.accuracy(torch.full((network.d,), math.nan), digits()))


# -- the parts


@pytest.mark.parametrize("module", MODULES)
def test_a_part_is_named_and_its_cases_are_paired(module):
    assert module.NAME in PARTS
    assert part_module(module.NAME) is module
    every = module.cases(False)
    assert len(set(every)) == len(every)
    pairs = {(case.setting, case.method) for case in every}
    assert len(every) == module.SEEDS * len(pairs)
    assert set(module.cases(True)) <= set(every)


@pytest.mark.parametrize("module", MODULES)
def test_a_report_says_what_it_was_given(module):
    """Every method gets the same value in every seed: all differences are zero, so that nothing is better."""
    support = {"own": 50.0, "all": 50.0, "bytes": 1.0}
    every = {case: {"accuracy": 50.0, "loss": 1.0, "megabytes": 3.0, **support} for case in module.cases(False)}
    text = "\n".join(module.report(every))
    assert "50.0" in text
    assert "| 0.0 ± 0.0 | undecided |" in text
    better_first = {case: {**o, "accuracy": 50.0 + (case.method == better_one(module))} for case, o in every.items()}
    assert "| 1.0 ± 0.0 | reproduced |" in "\n".join(module.report(better_first))


def better_one(module):
    return {
        matrix: "nnm + trimmed-mean",
        stochastic_sign: "sto-sign, oracle b",
        dq_sgd: "dq-sgd",
        dampening: "inverse",
        block_momentum: "nesterov 0.9, lr 0.7",
        representations: "suncet",
        conflicting_labels: "share-body",
        codistillation: "predictions",
    }[module]


def test_nodes_that_name_things_otherwise_gain_from_a_common_body_and_lose_by_a_common_head() -> None:
    """Shi (2021) on supervised data: share-body > alone > share-all."""
    cases = [case for case in conflicting_labels.cases(False) if case.seed == 1]
    body, alone, whole = (conflicting_labels.run(case, quick=False)["accuracy"] for case in cases)
    assert body > alone + 1
    assert alone > whole + 30


def test_a_bank_is_worth_more_than_a_node_s_own_support_where_labels_are_split() -> None:
    case = next(
        case
        for case in representations.cases(True)
        if case.method == representations.BANK and "Dirichlet 0.3" in case.setting
    )
    outcome = representations.run(case, quick=True)
    assert outcome["all"] > outcome["own"] + 4  # after two rounds; 18 at the end
    assert outcome["bytes"] == 4 * 10 * 2 * 64 * 4


def test_every_rule_of_the_matrix_is_installed_and_can_be_made():
    names = {plugin.name for plugin in installed("aggregator")}
    without_results = {"minimum-diameter", "smea", "caf", "meamed", "monna", "q-fedavg"}
    assert {rule.name for rule in matrix.RULES.values()} | without_results == names
    for rule in matrix.RULES.values():
        assert rule.make().min_updates() <= matrix.NODES


def test_the_reference_has_a_number_for_every_attack():
    assert all(len(line.split()) == len(matrix.ATTACKS) - 1 for line in matrix.REFERENCE.values())


def test_the_factors_of_dampening():
    assert dampening._factors("none", [0, 5]) == [1.0, 1.0]
    assert dampening._factors("inverse", [0, 5]) == [1.0, pytest.approx(1 / 6)]
    assert dampening._factors("exponential", [0, 5]) == [1.0, pytest.approx(math.exp(-1))]
    assert dampening._factors("constant, as inverse", [0, 5]) == [pytest.approx(7 / 12)] * 2


# -- remembering


def test_what_is_in_the_file_is_not_measured_again(tmp_path):
    case, other = Case("s", "a", 0), Case("s", "a", 1)
    record = Record(tmp_path / "out.json")
    record.add("part", case, {"accuracy": math.nan})
    record.add("part", other, {"accuracy": 2.0})
    found = Record(tmp_path / "out.json").of("part")
    assert math.isnan(found[case]["accuracy"])
    assert found[other] == {"accuracy": 2.0}
    assert Record(None).of("part") == {}


def test_tables_of_a_page_are_replaced_and_its_prose_is_not():
    page = "# A\n<!-- begin x -->old<!-- end x -->\nprose\n<!-- begin y -->kept<!-- end y -->\n"
    made = replaced(page, "x", [r"| \1 |"])
    assert made == "# A\n<!-- begin x -->\n\n| \\1 |\n\n<!-- end x -->\nprose\n<!-- begin y -->kept<!-- end y -->\n"
    with pytest.raises(ValueError, match="<!-- begin z -->"):
        replaced(page, "z", [])


def test_the_committed_page_has_a_place_for_every_part():
    text = (Path(__file__).parents[3] / "docs" / "results.md").read_text()
    assert all(replaced(text, part, []) != text for part in PARTS)


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["tickle"])
    assert "choose matrix, stochastic-sign" in capsys.readouterr().err


def test_missing_data_are_named(monkeypatch, tmp_path, capsys):
    from benchmarks.methods import data

    data.everything.cache_clear()
    monkeypatch.setenv("COVEY_DATA", str(tmp_path))
    assert main(["matrix"]) == 1
    assert "name another folder in COVEY_DATA" in capsys.readouterr().err
    data.everything.cache_clear()
