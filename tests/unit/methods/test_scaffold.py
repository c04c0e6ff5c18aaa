from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from covey.errors import SpecError, TaskError
from covey.layout import Layout, TensorSpec
from covey.learning.recipe import RecipeContext, RecipeInputs
from covey.methods.scaffold import Corrected
from covey.testing.method_rounds import MethodRounds, PlainExample, spec_of
from tests.unit.methods.naive import first_model, mean, trained

NODES = 4
EQUAL = {"weights": {"by": "equal"}}
DP = {"epsilon": 0.5, "delta": 1e-5, "clip": 1.0}
PLAIN = {"task": {"name": "covey.testing.method_rounds:PlainExample"}}
INVITED = [[0, 1, 2, 3], [1, 3], [0, 2, 3], [0, 1]]
"""In each round; so that some control variates are older than others."""


def zeros(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.zeros_like(p) for name, p in model.named_parameters()}


def naive_scaffold(rounds: list[list[int]]) -> tuple[dict[str, Tensor], dict[str, Tensor], list[dict[str, Tensor]]]:
    """Algorithm 1 with option II, tensor by tensor: the model, c, and every c_i."""
    spec = spec_of("scaffold", **EQUAL, **PLAIN)
    model = first_model(spec)
    x = {name: value.clone() for name, value in model.state_dict().items()}
    c, own = zeros(model), [zeros(model) for _ in range(NODES)]
    for number, chosen in enumerate(rounds, start=1):
        states, changes = [], []
        for i in chosen:

            def correct(model: nn.Module, c: dict[str, Tensor] = c, c_i: dict[str, Tensor] = own[i]) -> None:
                for name, parameter in model.named_parameters():
                    assert parameter.grad is not None
                    parameter.grad += c[name] - c_i[name]

            y, steps = trained(spec, x, i, NODES, number, correct=correct)
            new = {n: own[i][n] - c[n] + (x[n] - y[n]) / (steps * spec.training.learning_rate) for n in c}
            states.append(y)
            changes.append({n: new[n] - own[i][n] for n in c})
            own[i] = new
        x = mean(states, [1 / len(chosen)] * len(chosen))
        c = {n: c[n] + len(chosen) / NODES * sum(change[n] for change in changes) / len(chosen) for n in c}
    return x, c, own


def as_tensors(path: Path, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """A flat vector's file, cut into tensors in the order of a model whose tensors are all float32."""
    flat, found, at = torch.from_numpy(np.fromfile(path, "<f4")), {}, 0
    for name, tensor in like.items():
        found[name] = flat[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    assert at == len(flat)
    return found


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)


def test_rounds_are_those_of_the_paper_s_algorithm(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("scaffold", **EQUAL, **PLAIN), tmp_path, NODES)
    for chosen in INVITED:
        run.round([f"n{i}" for i in chosen])
    model, c, own = naive_scaffold(INVITED)
    close(run.tensors(), model)
    close(as_tensors(run.version_state["method/control"], c), c)
    for i, c_i in enumerate(own):
        close(as_tensors(run.nodes[f"n{i}"].accepted["method/control"], c), c_i)


def test_the_run_s_control_is_the_mean_of_the_nodes_own(tmp_path: Path) -> None:
    """Also where an update is rejected: neither side counts it."""
    run = MethodRounds(spec_of("scaffold", **EQUAL), tmp_path, NODES)
    run.round()
    run.round(spoilt=["n1"])
    run.round(["n0", "n1", "n3"], spoilt=["n3"])
    own = [np.fromfile(node.accepted["method/control"], "<f4") for node in run.nodes.values()]
    np.testing.assert_allclose(np.fromfile(run.version_state["method/control"], "<f4"), np.mean(own, 0), atol=1e-5)


def test_the_first_round_is_plain_averaging(tmp_path: Path) -> None:
    scaffold, plain = (MethodRounds(spec_of(name, **EQUAL), tmp_path / name, NODES) for name in ("scaffold", "none"))
    assert scaffold.round().model_sha256 == plain.round().model_sha256
    assert scaffold.round().model_sha256 != plain.round().model_sha256


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"training": {"optimizer": "adam"}}, r'training\.optimizer: .*\'adam\'.*choose "sgd"'),
        ({"training": {"optimizer": "momentum"}}, r'training\.optimizer: .*\'momentum\'.*choose "sgd"'),
        ({"training": {"clip_norm": 1.0}}, r"training\.clip_norm: .*leave it out"),
        ({"exchange": {"payload": "gradient"}, "training": {"local_steps": 1}}, r"exchange\.payload: .*choose"),
        ({"exchange": {"worker_momentum": 0.9}}, r"exchange\.worker_momentum: .*leave it out"),
        ({"aggregation": {"name": "median"}}, r'aggregation\.name: what a robust rule .*"mean"'),
        ({"aggregation": {"name": "mean", "fallback": {"name": "median"}}}, r"aggregation\.fallback: what a robust"),
        (
            {"exchange": {"codec": "sign"}, "aggregation": {"name": "majority-vote"}, **EQUAL, **PLAIN},
            r"exchange\.codec: the model that comes of signs \('sign'\)",
        ),
        (
            {
                "exchange": {"codec": "dp-sign", "payload": "gradient", "options": DP},
                "training": {"local_steps": 1},
                "aggregation": {"name": "majority-vote"},
                **EQUAL,
                **PLAIN,
            },
            r"method\.name: 'scaffold' changes gradients, and 'dp-sign' releases those of single examples",
        ),
        (
            {"mode": "async", "aggregation": {"name": "buffered"}, "rounds": {}, "async": {"updates": 3}},
            r'mode: method \'scaffold\' works in mode "rounds" only',
        ),
    ],
)
def test_what_it_cannot_work_with_is_refused(tmp_path: Path, sections, text) -> None:
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of("scaffold", **sections), tmp_path, NODES)


def test_a_training_without_a_step_is_said_in_words() -> None:
    spec = spec_of("scaffold", **EQUAL, **PLAIN)
    model = first_model(spec)
    layout = Layout.of([TensorSpec(name, "float32", tuple(p.shape)) for name, p in model.named_parameters()])
    recipe = Corrected()
    cpu, stream, inputs = torch.device("cpu"), torch.Generator(), RecipeInputs(layout)
    recipe.begin(RecipeContext(PlainExample(), model, spec.training, 1, 1, 0, stream, spec.seed, cpu, inputs))
    with pytest.raises(TaskError, match="no local step"):
        recipe.finish()
    recipe.after_step(model)
    assert set(recipe.finish()) == {"control"}
