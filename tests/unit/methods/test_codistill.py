"""Codistillation: the gradient against the definition, what is matched with what, and that nodes come to agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from covey.errors import SpecError, TaskError
from covey.layout import Layout
from covey.learning.common import ids_of
from covey.learning.recipe import RecipeContext, RecipeInputs
from covey.learning.task import LossOutput, loss_of
from covey.learning.tasks.digits import Digits
from covey.methods.codistill import Comparing, Predicting
from covey.spec.codistillation import CodistillOptions
from covey.testing.method_rounds import MethodRounds, PlainExample, examples, spec_of
from covey.worker.files.mapped import map_float32

PLAIN: dict[str, Any] = {
    "task": {"name": "covey.testing.method_rounds:PlainExample"},
    "training": {"learning_rate": 0.1, "batch_size": 8, "local_steps": 2},
}
DIGITS: dict[str, Any] = {
    "task": {"name": "digits", "options": {"common": 1000}},
    "training": {"learning_rate": 0.1, "batch_size": 32, "local_steps": 15},
}
GENERATOR = torch.Generator().manual_seed(3)
LOGITS = 6 * torch.randn(3, 16, 2, generator=GENERATOR)
"""Of three other nodes, on two steps of eight examples."""


def predicting(
    options: dict[str, Any], others: dict[str, Tensor], samples: dict[str, Tensor], round: int = 2
) -> tuple[Predicting, PlainExample, nn.Module, Tensor]:
    """A recipe that has begun; its task, its model, and the ids of this round's common examples."""
    task, spec = PlainExample(), spec_of("codistill", {"classes": 2, **options}, **PLAIN)
    torch.manual_seed(1)
    model, recipe = task.model(), Predicting(CodistillOptions(classes=2, **options))

    def begin(others: dict[str, Tensor], samples: dict[str, Tensor], round: int) -> None:
        inputs = RecipeInputs(Layout(()), others={"logits": others, "samples": samples}, common=task.common_data)
        cpu = torch.device("cpu")
        recipe.begin(
            RecipeContext(
                task=task,
                model=model,
                training=spec.training,
                round=round,
                rounds=4,
                roster_index=0,
                generator=torch.Generator(),
                seed=spec.seed,
                device=cpu,
                inputs=inputs,
            )
        )

    begin({}, {}, round - 1)
    ids = recipe.finish()["samples"]
    assert isinstance(ids, Tensor)
    begin(others, {node: samples.get(node, ids) for node in others}, round)
    model.train()
    return recipe, task, model, ids


def gradient(loss: Tensor, model: nn.Module) -> Tensor:
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])


def rows_of(ids: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """The common examples of a step: found by their ids, one by one."""
    x, y = examples(20, 3).tensors
    known = {int(i): row for row, i in enumerate(ids_of(torch.utils.data.TensorDataset(x, y), torch.arange(20)))}
    rows = [known[int(i)] for i in ids.view(2, 8)[step]]
    return x[rows], y[rows]


@pytest.mark.parametrize("divergence", ["kl", "mse"])
def test_the_gradient_is_that_of_the_definition(divergence: str) -> None:
    """The mean over the others of D(f_i(x), o_j), each written out, at both steps."""
    options = {"divergence": divergence, "weight": 0.7}
    others = {f"n{j}": LOGITS[j].reshape(-1) for j in range(3)}
    recipe, task, model, ids = predicting(options, others, {})
    batch = tuple(tensor[:8] for tensor in examples(20, 9).tensors)
    for step in range(2):
        base = loss_of(task, model, batch)
        found = gradient(recipe.loss(model, batch, base), model)
        logits = model(rows_of(ids, step)[0])
        terms = []
        for j in range(3):
            other = LOGITS[j].view(2, 8, 2)[step]
            if divergence == "mse":
                terms.append(((logits - other) ** 2).mean())
            else:
                log_p, log_q = torch.log_softmax(other, 1), torch.log_softmax(logits, 1)
                terms.append((log_p.exp() * (log_p - log_q)).sum(1).mean())
        expected = functional.cross_entropy(model(batch[0]), batch[1]) + 0.7 * sum(terms) / 3
        torch.testing.assert_close(found, gradient(expected, model), rtol=1e-4, atol=1e-6)


def test_predictions_are_matched_by_id_and_never_by_position() -> None:
    """In another order they say the same; of examples of which nobody says anything, nothing is learned."""
    batch = tuple(tensor[:8] for tensor in examples(20, 9).tensors)
    recipe, task, model, ids = predicting({}, {"n1": LOGITS[0].reshape(-1)}, {})
    order = torch.randperm(16, generator=GENERATOR)
    shuffled = {"n1": LOGITS[0][order].reshape(-1)}
    other, *_ = predicting({}, shuffled, {"n1": ids[order]})
    same, shifted = (r.loss(model, batch, loss_of(task, model, batch)) for r in (recipe, other))
    torch.testing.assert_close(same, shifted)
    unknown, *_ = predicting({}, shuffled, {"n1": ids + 1})
    base = loss_of(task, model, batch)
    assert unknown.loss(model, batch, base) is base.loss
    # Of what is known in the second step only, the second step learns, with the second step's examples.
    half, *_ = predicting({}, {"n1": LOGITS[0].reshape(-1)}, {"n1": torch.cat([ids[:8] + 1, ids[8:]])})
    assert half.loss(model, batch, base) is base.loss
    second = predicting({}, {"n1": LOGITS[0].reshape(-1)}, {})[0]
    second.loss(model, batch, base)
    torch.testing.assert_close(half.loss(model, batch, base), second.loss(model, batch, base))
    # A late node's do not take weight from the others'.
    late, *_ = predicting({}, {"n1": shuffled["n1"], "n2": LOGITS[1].reshape(-1)}, {"n1": ids[order], "n2": ids + 1})
    torch.testing.assert_close(late.loss(model, batch, base), same)


def test_a_hostile_prediction_ends_no_training() -> None:
    batch = tuple(tensor[:8] for tensor in examples(20, 9).tensors)
    huge = torch.full((32,), 3e38) * torch.tensor([1.0, -1.0]).repeat(16)
    for divergence, most in (("kl", 2**0.5), ("mse", 2 * 101)):
        recipe, task, model, _ = predicting({"divergence": divergence}, {"n1": huge}, {})
        target = recipe.as_target(huge.view(16, 2))
        logits = torch.zeros(16, 2, requires_grad=True)
        recipe.divergence(logits, target).sum().backward()
        assert logits.grad is not None
        assert logits.grad.norm(dim=1).max() <= most
        assert recipe.loss(model, batch, loss_of(task, model, batch)).isfinite()


def test_weight_burn_in_and_schedules() -> None:
    schedule = {"weight": {"kind": "linear", "factor": 5.0}, "label_smoothing": {"kind": "exponential", "factor": 0.5}}
    options = CodistillOptions(weight=2.0, burn_in=1, label_smoothing=0.4, schedule=schedule)
    for round, weight, smoothing in ((1, 0.0, 0.4), (2, 2.0, 0.2), (3, 6.0, 0.1), (4, 10.0, 0.05)):
        recipe = Comparing(options)
        task = PlainExample()
        model, spec = task.model(), spec_of("codistill", {"exchange": "checkpoints"}, **PLAIN)
        stream, cpu = torch.Generator(), torch.device("cpu")
        recipe.begin(RecipeContext(task, model, spec.training, round, 4, 0, stream, 5, cpu, RecipeInputs(Layout(()))))
        logits = torch.randn(5, 3, generator=GENERATOR)
        y = torch.tensor([0, 1, 2, 0, 1])
        base = LossOutput(functional.cross_entropy(logits, y), 5, logits, y)
        assert recipe._weight == pytest.approx(weight)
        expected = functional.cross_entropy(logits, y, label_smoothing=smoothing)
        torch.testing.assert_close(recipe.smoothed(base), expected)
    with pytest.raises(TaskError, match=r"gives None as logits, and \"codistill\" needs \[n, classes\]"):
        recipe.smoothed(LossOutput(torch.zeros(()), 5))


def test_without_weight_every_node_trains_as_it_would_alone(tmp_path: Path) -> None:
    """Bit for bit: beside plain averaging, whose first round is the same training."""
    sections = {**PLAIN, "exchange": {"payload": "parameters"}}
    plain = MethodRounds(spec_of("none", **sections), tmp_path / "plain")
    alone = MethodRounds(spec_of("codistill", {"exchange": "checkpoints", "weight": 0.0}, **PLAIN), tmp_path / "alone")
    expected = plain.train("n1").parts[0].path.read_bytes()
    assert alone.train("n1").parts[0].path.read_bytes() == expected
    chosen: list[dict[str, Any]] = [{"weight": 0.0}, {"burn_in": 2}, {"weight": 1.0}]
    runs = [
        MethodRounds(spec_of("codistill", {"exchange": "checkpoints", **options}, **PLAIN), tmp_path / f"{k}")
        for k, options in enumerate(chosen)
    ]
    for run in runs:
        run.round()
        run.round()
    members = [run.nodes["n1"].own["method/member"].read_bytes() for run in runs]
    assert members[0] == members[1] != members[2]


def test_a_late_node_blocks_nobody_and_comes_back(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("codistill", {"classes": 2}, **PLAIN), tmp_path)
    assert run.layout.tensors == ()
    for invited in (None, ["n0", "n1"], ["n0", "n1"], None):
        assert all(verdict.accepted for verdict in run.round(invited).verdicts)
    assert set(run.members["logits"]) == {"n0", "n1", "n2"}
    assert not run.version_state


def predictions(run: MethodRounds, node: str, hidden: int = 64) -> Tensor:
    """What a node's own model says of the central data: int64 `[360]`."""
    flat, shapes = run.nodes[node].state, {"w": (hidden, 64), "b": (hidden,), "v": (10, hidden), "c": (10,)}
    (path,) = flat.values()
    values = map_float32(path, sum(int(np.prod(shape)) for shape in shapes.values()))
    tensors = torch.split(values, [int(np.prod(shape)) for shape in shapes.values()])
    w, b, v, c = (tensor.view(shape) for tensor, shape in zip(tensors, shapes.values(), strict=True))
    x = Digits().central_data().tensors[0]
    predicted: Tensor = (torch.relu(x @ w.T + b) @ v.T + c).argmax(1)
    return predicted


@pytest.mark.parametrize("exchange", ["predictions", "checkpoints"])
def test_nodes_come_to_agree_and_keep_models_of_their_own(tmp_path: Path, exchange: str) -> None:
    """The toy figure: two nodes with their own examples agree more than if each had trained alone."""
    agreement, data = {}, {"partition": "dirichlet", "alpha": 1.0}
    for weight in (0.0, 1.0):
        classes = {"classes": 10} if exchange == "predictions" else {}
        options = {"exchange": exchange, "weight": weight, **classes}
        run = MethodRounds(spec_of("codistill", options, data=data, **DIGITS), tmp_path / str(weight), nodes=2)
        for _ in range(6):
            run.round()
        first, second = predictions(run, "n0"), predictions(run, "n1")
        agreement[weight] = (first == second).float().mean().item()
        members = [np.fromfile(next(iter(node.state.values())), "<f4") for node in run.nodes.values()]
    assert agreement[1.0] > agreement[0.0] + 0.1
    assert np.linalg.norm(members[0] - members[1]) > 0.3 * np.linalg.norm(members[0])


def test_nodes_may_have_different_models(tmp_path: Path) -> None:
    """With predictions no model is exchanged: that of one node is wider here, and they learn from one another."""
    spec = spec_of("codistill", {"classes": 10}, **DIGITS)
    run = MethodRounds(spec, tmp_path, nodes=2)
    task = {"name": "digits", "options": {"common": 1000, "hidden": 100}}
    wider = spec_of("codistill", {"classes": 10}, **{**DIGITS, "task": task}).to_json()
    state: dict[str, dict[str, Path]] = {"n0": {}, "n1": {}}
    for number in range(1, 7):
        for node in run.names:
            fields = {"spec_json": wider} if node == "n1" else {}
            result = run.train(node, number, state=state[node], **fields)
            state[node] = {file.name: file.path for file in result.own_state}
            for part in result.parts:
                run.members.setdefault(part.name, {})[node] = part.path
    run.nodes["n0"].own, run.nodes["n1"].own = state["n0"], state["n1"]
    y = Digits().central_data().tensors[1]
    narrow, wide = predictions(run, "n0"), predictions(run, "n1", hidden=100)
    assert min((narrow == y).float().mean(), (wide == y).float().mean()) > 0.7


@pytest.mark.parametrize(
    ("options", "sections", "text"),
    [
        ({}, {}, r"method\.options\.classes: say how many"),
        ({"classes": 2}, {"training": {"local_epochs": 1}}, r"training\.local_steps: .*not epochs"),
        ({"classes": 2, "batch_size": 21}, {}, r"has 20; choose batch_size = 20 at most"),
        ({"classes": 2}, {"task": {"name": "digits"}}, r"task 'digits' has none; choose \"checkpoints\""),
        ({"exchange": "checkpoints", "classes": 2}, {}, r"method\.options\.classes: it is for .*leave it out"),
        (
            {"exchange": "checkpoints"},
            {"task": {"name": "covey.testing.method_rounds:NormedExample"}},
            r"method\.options\.exchange: the model has buffers .*predictions",
        ),
        ({"classes": 2}, {"evaluation": {"where": "central"}}, r"evaluation\.where: .*no global model"),
    ],
)
def test_what_it_cannot_work_with_is_refused(tmp_path: Path, options: Any, sections: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of("codistill", options, **{**PLAIN, **sections}), tmp_path)


def test_a_wrong_number_of_classes_is_said_in_words(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("codistill", {"classes": 3}, **PLAIN), tmp_path)
    with pytest.raises(TaskError, match=r"a tensor of shape \[8, 2\] as logits, and \"codistill\" needs \[n, 3\]"):
        run.round()
