from __future__ import annotations

import math
from itertools import pairwise

from benchmarks.methods.cases import Case
from benchmarks.methods.memory_optimizers import RATES, SEEDS, SETTINGS, TUNING, at, best, compared, report, run, tuning

ONE = ("digits, sgd",)


def test_the_grid_of_learning_rates_doubles() -> None:
    assert all(later == 2 * rate for rates in RATES.values() for rate, later in pairwise(rates))
    assert {setting.split(", ")[1] for setting in SETTINGS} == set(RATES)
    assert not set(TUNING) & set(SEEDS)


def test_each_method_is_compared_at_its_own_best_learning_rate() -> None:
    score = {"base": {0.4: 80.0, 0.8: 85.0}, "sum": {0.4: 90.0}, "mean": {1.6: 70.0}}
    tuned = {
        case: {"score": score[case.method.split(" at ")[0]].get(float(case.method.split(" at ")[1]), math.nan)}
        for case in tuning(ONE)
    }
    assert [best(tuned, ONE[0], method) for method in ("base", "sum", "mean")] == [0.8, 0.4, 1.6]
    cases = compared(tuned, ONE, quick=False)
    assert len(cases) == len(SEEDS) * 3
    outcomes = {case: {"score": 80.0 + case.seed % 2, "accuracy": 90.0} for case in cases}
    outcomes |= {case: {"score": 83.0 + case.seed % 2, "accuracy": 91.0} for case in cases if "sum" in case.method}
    text = "\n".join(report({**tuned, **outcomes}, ONE))
    assert "| digits, sgd: memory with sum > without | 3.0 ± 0.0 | reproduced |" in text
    assert "| digits, sgd: memory with mean > without | 0.0 ± 0.0 | undecided |" in text
    assert "| digits, sgd | base | 0.8 |" in text


def test_a_training_is_a_run_of_covey_and_one_that_diverges_has_no_score() -> None:
    outcome = run(Case(ONE[0], at("sum", 0.2), 0), quick=True)
    assert 20 < outcome["score"] <= outcome["accuracy"] <= 100
    assert math.isnan(run(Case(ONE[0], at("base", 1e30), 0), quick=True)["score"])
