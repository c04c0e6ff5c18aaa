from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from covey.errors import LayoutError, SpecError
from covey.learning.models.state import layout_of
from covey.methods.fedbn import FedBN
from covey.metrics import counted
from covey.testing.method_rounds import MethodRounds, NormedExample, spec_of
from covey.worker.execute.node_ops import evaluate
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.program.host import Host
from covey.worker.program.local_tensors import LocalTensors
from tests.unit.methods.naive import first_model, mean, shares, trained

NODES = 3
NORM = {f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def naive_rounds(rounds: int) -> list[dict[str, Tensor]]:
    """Algorithm 1: each node's whole state, all but BatchNorm the same."""
    spec = spec_of("fedbn")
    first = {name: value.clone() for name, value in first_model(spec).state_dict().items()}
    states = [dict(first) for _ in range(NODES)]
    for number in range(1, rounds + 1):
        states = [trained(spec, states[index], index, NODES, number)[0] for index in range(NODES)]
        together = mean(states, shares(spec, list(range(NODES)), NODES))
        states = [{name: state[name] if name in NORM else together[name] for name in state} for state in states]
    return states


def own_tensors(run: MethodRounds, node: str) -> dict[str, Tensor]:
    """A node's local tensors, of the file that it keeps."""
    model = NormedExample().model()
    LocalTensors(model, frozenset(NORM)).load_into(model, run.nodes[node].own["method/local"])
    return {name: value for name, value in model.state_dict().items() if name in NORM}


def test_rounds_are_those_of_the_paper_s_algorithm(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("fedbn"), tmp_path, NODES)
    for _ in range(3):
        run.round()
    expected, shared = naive_rounds(3), run.tensors()
    assert shared.keys() == expected[0].keys() - NORM
    for index, state in enumerate(expected):
        found = {**shared, **own_tensors(run, f"n{index}")}
        for name, value in state.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    assert not torch.equal(own_tensors(run, "n0")["1.running_mean"], own_tensors(run, "n1")["1.running_mean"])


def test_a_rejected_update_keeps_the_node_s_own_tensors(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("fedbn"), tmp_path, NODES)
    run.round()
    before = own_tensors(run, "n1")
    run.round(spoilt=["n1"])
    assert not torch.equal(before["1.running_mean"], own_tensors(run, "n1")["1.running_mean"])


def test_a_node_evaluates_with_its_own_tensors(tmp_path: Path) -> None:
    spec = spec_of("fedbn")
    run = MethodRounds(spec, tmp_path, NODES)
    run.round()
    host = Host(torch.device("cpu"))

    def found(state: dict[str, Path]) -> float:
        job = EvaluateJob("run", spec.to_json(), run.model, "node", allow_path=True, state=state)
        return counted(evaluate(job, host).metrics)["loss"][0] / 20

    def expected(own: dict[str, Tensor]) -> float:
        model = first_model(spec)
        model.load_state_dict({**model.state_dict(), **run.tensors(), **own})
        x, y = NormedExample().central_data().tensors
        return nn.functional.cross_entropy(model.eval()(x), y).item()

    first = {name: value for name, value in first_model(spec).state_dict().items() if name in NORM}
    losses = [found(run.nodes[f"n{k}"].own) for k in range(2)] + [found({})]
    assert losses == pytest.approx(
        [expected(own_tensors(run, f"n{k}")) for k in range(2)] + [expected(first)], rel=1e-4
    )
    assert len(set(losses)) == 3


def test_patterns_name_other_tensors(tmp_path: Path) -> None:
    model = NormedExample().model()
    assert FedBN().local(model) == NORM
    assert FedBN({"patterns": ["^3\\."]}).local(model) == {"3.weight", "3.bias"}
    run = MethodRounds(spec_of("fedbn", {"patterns": ["^3\\.", "running"]}), tmp_path, NODES)
    names = {tensor.name for tensor in run.layout.tensors}
    assert names == {"0.weight", "0.bias", "1.weight", "1.bias", "1.num_batches_tracked"}
    assert run.round().enough


def test_local_tensors_are_those_of_the_model() -> None:
    model = NormedExample().model()
    assert LocalTensors(model, frozenset({"0.bias"})).without(layout_of(model)).tensors[-1].name != "0.bias"
    with pytest.raises(LayoutError, match="no tensor 'extra'"):
        LocalTensors(model, frozenset({"extra"}))


@pytest.mark.parametrize(
    ("options", "sections", "text"),
    [
        ({"patterns": ["("]}, {}, r"^method\.options\.patterns.*'\(' is not a regular expression"),
        ({"patterns": ["none of it"]}, {}, r"^method\.name: .*nothing in the task's model has a tensor of such a name"),
        ({"patterns": ["."]}, {}, r"method\.name: 'fedbn' leaves every parameter on its node"),
        ({}, {"task": {"name": "digits"}}, r"^method\.name: .*nothing in the task's model has a BatchNorm module"),
        ({}, {"evaluation": {"where": "central"}}, r"^evaluation\.where: the coordinator lacks .*choose \"nodes\""),
        ({}, {"evaluation": {"where": "both"}}, r"^evaluation\.where: the coordinator lacks"),
        ({}, {"aggregation": {"name": "zeno", "root_examples": 4}}, r"^aggregation\.name: 'zeno' evaluates on"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, options, sections, text) -> None:
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of("fedbn", options, **sections), tmp_path, NODES)


def test_it_is_evaluated_on_the_nodes_only(tmp_path: Path) -> None:
    assert not MethodRounds(spec_of("fedbn"), tmp_path / "fedbn", NODES).description.central
    assert MethodRounds(spec_of("none"), tmp_path / "none", NODES).description.central
