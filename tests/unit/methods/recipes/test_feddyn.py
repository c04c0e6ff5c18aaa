from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from covey.aggregation.verdicts import Verdict
from covey.errors import SpecError
from covey.testing.method_rounds import MethodRounds, spec_of
from tests.unit.methods.naive import first_model, mean, trained

NODES, ALPHA = 4, 0.2
EQUAL = {"weights": {"by": "equal"}}
PLAIN = {"task": {"name": "covey.testing.method_rounds:PlainExample"}}
INVITED = [[0, 1, 2, 3], [1, 3], [0, 2, 3], [0, 1]]
RUN, OWN = "method/gradients", "method/own-gradient"


def flat(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values.values()])


def naive_feddyn(rounds: list[list[int]]) -> tuple[dict[str, Tensor], Tensor, list[Tensor]]:
    """Algorithm 1, tensor by tensor: the mean of the last round's models, h, and every node's gradient."""
    spec = spec_of("feddyn", {"alpha": ALPHA}, **EQUAL, **PLAIN)
    begin = {name: value.clone() for name, value in first_model(spec).state_dict().items()}
    zeros = {name: torch.zeros_like(value) for name, value in begin.items()}
    h, own, average = zeros, [zeros] * NODES, begin
    for number, chosen in enumerate(rounds, start=1):
        states = []
        for i in chosen:

            def penalty(model: nn.Module, g: dict[str, Tensor] = own[i], w: dict[str, Tensor] = begin) -> Tensor:
                terms = [ALPHA / 2 * (p - w[n]).square().sum() - (g[n] * p).sum() for n, p in model.named_parameters()]
                return torch.stack(terms).sum()

            state, _ = trained(spec, begin, i, NODES, number, penalty=penalty)
            own[i] = {n: own[i][n] - ALPHA * (state[n] - begin[n]) for n in begin}
            states.append(state)
        h = {n: h[n] - ALPHA / NODES * sum(state[n] - begin[n] for state in states) for n in begin}
        average = mean(states, [1 / len(chosen)] * len(chosen))
        begin = {n: average[n] - h[n] / ALPHA for n in begin}
    return average, flat(h), [flat(each) for each in own]


def of_the_run(run: MethodRounds) -> tuple[np.ndarray, int, int]:
    """The mean of all nodes' gradients, the epoch, and how many nodes there are."""
    vector = np.fromfile(run.version_state[RUN], "<f4")
    return vector[:-2] / vector[-1], int(vector[-2]), int(vector[-1])


def of_the_nodes(run: MethodRounds) -> np.ndarray:
    """The mean of what they keep: one that never took part has zero."""
    kept = [np.fromfile(node.accepted[OWN], "<f4")[:-2] for node in run.nodes.values() if OWN in node.accepted]
    return np.asarray(np.sum(kept, 0) / len(run.nodes))


def test_rounds_are_those_of_the_paper_s_algorithm(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("feddyn", {"alpha": ALPHA}, **EQUAL, **PLAIN), tmp_path, NODES)
    for chosen in INVITED:
        run.round([f"n{i}" for i in chosen])
    model, h, own = naive_feddyn(INVITED)
    for name, value in model.items():
        torch.testing.assert_close(run.tensors()[name], value, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(of_the_run(run)[0], h, rtol=1e-3, atol=2e-5)
    for i, expected in enumerate(own):
        found = np.fromfile(run.nodes[f"n{i}"].accepted[OWN], "<f4")
        np.testing.assert_allclose(found[:-2], expected, rtol=1e-3, atol=2e-5)
        assert found[-2:].tolist() == [0, sum(i in chosen for chosen in INVITED)]


def test_one_step_by_hand(tmp_path: Path) -> None:
    """In the first round nothing pulls in the first step: w = w_1 - lr gradient, and g = lr alpha gradient."""
    training = {"learning_rate": 0.1, "batch_size": 8, "local_steps": 1}
    run, plain = (
        MethodRounds(spec_of(name, training=training, **EQUAL, **PLAIN), tmp_path / name, 1)
        for name in ("feddyn", "none")
    )
    first = flat(plain.tensors())
    assert run.round().model_sha256 == plain.round().model_sha256
    moved = flat(plain.tensors()) - first
    np.testing.assert_allclose(np.fromfile(run.nodes["n0"].accepted[OWN], "<f4")[:-2], -0.1 * moved, atol=1e-7)
    np.testing.assert_allclose(of_the_run(run)[0], -0.1 * moved, atol=1e-7)


def test_the_run_s_gradient_is_the_mean_of_the_nodes_own(tmp_path: Path) -> None:
    """With partial participation, BatchNorm, an update that is rejected, and weights by examples."""
    run = MethodRounds(spec_of("feddyn"), tmp_path, NODES)
    for invited, spoilt in ((["n0", "n1"], []), (None, ["n1"]), (["n1", "n2", "n3"], ["n3"]), (["n0"], [])):
        run.round(invited, spoilt=spoilt)
        found, epoch, nodes = of_the_run(run)
        np.testing.assert_allclose(found, of_the_nodes(run), atol=1e-6)
        assert (epoch, nodes) == (0, NODES)
        assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize("older", [False, True])
def test_a_node_that_lost_its_gradient_or_has_an_older_one_resets_all(tmp_path: Path, older: bool) -> None:
    run = MethodRounds(spec_of("feddyn", **EQUAL), tmp_path, NODES)
    run.round()
    before = dict(run.nodes["n1"].accepted)
    run.round()
    run.nodes["n1"].accepted = before if older else {}
    result = run.round(["n0", "n1"], spoilt=["n1"])  # what was lost is not known yet: its update does not count
    assert (of_the_run(run)[1], result.metrics.get("resets")) == (0, None)
    run.nodes["n1"].accepted = before if older else {}
    result = run.round(["n0", "n1", "n2"])
    assert result.metrics["resets"] == (1.0, 1.0)
    found, epoch, _ = of_the_run(run)
    assert (np.abs(found).max(), epoch) == (0, 1)
    # All begin at zero, also n3, which did not take part: from here on the mean is a mean again.
    for invited in (["n0", "n3"], ["n1", "n2"], None):
        result = run.round(invited)
        assert result.metrics["resets"] == (1.0, 1.0)
    found = of_the_run(run)[0]
    np.testing.assert_allclose(found, of_the_nodes(run), atol=1e-6)
    assert np.abs(found).max() > 1e-3


def test_a_mark_that_cannot_be_costs_its_own_update_only(tmp_path: Path) -> None:
    from covey.methods.contract import METHODS, RunForm

    run = MethodRounds(spec_of("feddyn"), tmp_path, NODES)
    method, form = METHODS.make("feddyn"), RunForm(run.spec, run.layout)
    assert method.objection({"mark": torch.tensor([0.0, 3.0])}, form) == ""
    for wrong in ([0.5, 1.0], [-1.0, 1.0]):
        assert "not two whole numbers" in method.objection({"mark": torch.tensor(wrong)}, form)
    results = run.round()
    assert all(isinstance(verdict, Verdict) and verdict.accepted for verdict in results.verdicts)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        (
            {"exchange": {"payload": "gradient"}, "training": {"local_steps": 1}},
            r"exchange\.payload: .*choose \"delta\"",
        ),
        ({"exchange": {"codec": "int8"}}, r"exchange\.codec: .*'int8' loses some .*choose \"none\""),
        ({"exchange": {"worker_momentum": 0.9}}, r"exchange\.worker_momentum: .*leave it out"),
        ({"aggregation": {"name": "median"}}, r"aggregation\.name: the model of \"feddyn\" is the mean"),
        (
            {"aggregation": {"name": "mean", "pre": [{"name": "static-clip", "options": {"c": 1.0}}]}},
            r"aggregation\.name: .*without pre",
        ),
        ({"server_optimizer": {"name": "momentum"}}, r"server_optimizer\.name: .*learning rate 1"),
        (
            {"server_optimizer": {"name": "sgd", "options": {"learning_rate": 0.5}}},
            r"server_optimizer\.name: .*learning rate 1",
        ),
        (
            {"mode": "async", "aggregation": {"name": "buffered"}, "rounds": {}, "async": {"updates": 3}},
            r'mode: method \'feddyn\' works in mode "rounds" only',
        ),
    ],
)
def test_what_it_cannot_work_with_is_refused(tmp_path: Path, sections, text) -> None:
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of("feddyn", **sections), tmp_path, NODES)
