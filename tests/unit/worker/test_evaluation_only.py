"""A method without parts stands for the one of a run that trains nothing; its model stays what that one makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from covey.errors import PolicyError, SpecError
from covey.layout import Layout
from covey.methods.contract import RunForm, parts_of
from covey.methods.fedbn import FedBN
from covey.spec import parse_data
from covey.testing.method_rounds import MethodRounds, spec_of
from covey.worker.execute.limits import check_answer
from covey.worker.jobs.training import TrainLimits
from covey.worker.program.evaluation_only import EvaluationOnly, method_of_run

ONLY: dict[str, Any] = {
    "name": "x",
    "task": {"name": "digits"},
    "model": {"initial": "run:digits"},
    "rounds": {"count": 1},
    "evaluation": {"only": True},
}


def test_nothing_is_exchanged_and_the_model_is_the_method_s() -> None:
    spec = parse_data(ONLY | {"method": {"name": "fedbn"}})
    method, model = method_of_run(spec), nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert isinstance(method, EvaluationOnly)
    assert parts_of(method, RunForm(spec, Layout(()))) == ()
    assert method.local(model) == FedBN().local(model) != frozenset()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"mode": "async"}, r'evaluation\.only: nodes are asked in a round; write mode = "rounds", not "async"'),
        ({"model": {}}, r"model\.initial: say which model is evaluated"),
        ({"rounds": {"count": 2}}, r"rounds\.count: .* one round; write 1"),
        ({"aggregation": {"name": "median"}}, r"aggregation: .* leave \[aggregation\] out"),
        ({"stop": {"target": 0.9}}, r"stop: .* leave \[stop\] out"),
        ({"exchange": {"codec": "bf16"}}, r"exchange\.codec: .* no update is sent"),
        ({"evaluation": {"only": True, "where": "central"}}, r"evaluation\.where: .* nodes do"),
        ({"evaluation": {"only": True, "every": 0}}, r"evaluation\.every: "),
        ({"evaluation": {"local_rounds": 2}}, r"evaluation\.local_rounds: .* write only = true"),
        ({"evaluation": {"nodes": ["n0"]}}, r"evaluation\.nodes: .* write only = true"),
    ],
)
def test_what_such_a_run_has_no_use_for_is_refused(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        parse_data(ONLY | changed)


def test_few_examples_are_as_little_as_the_operator_wants() -> None:
    check_answer(TrainLimits(examples=3), 3)
    with pytest.raises(PolicyError, match=r"2 examples; .* fewer than 3"):
        check_answer(TrainLimits(examples=3), 2)


@pytest.mark.parametrize("name", ["feddistill", "statistics"])
def test_the_first_model_of_a_run_without_a_global_one_is_not_evaluated(tmp_path: Path, name: str) -> None:
    """What its nodes' models became was never in a version."""
    options = {"columns": ["first"]} if name == "statistics" else {}
    spec = spec_of(name, options, model={"initial": "run:x"}, rounds={"count": 1}, evaluation={"only": True})
    with pytest.raises(SpecError, match=rf"evaluation\.only: '{name}' has no global model that nodes could evaluate"):
        MethodRounds(spec, tmp_path)
