from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from covey.errors import SpecError, TaskError
from covey.learning.task import FitResult, FitSettings, LossOutput, NodeData, Task
from covey.learning.training import per_example
from covey.learning.training.per_example import per_example_sum
from covey.seeds import derive_seed
from covey.spec import TrainingSection

CPU = torch.device("cpu")
SETTINGS = TrainingSection(batch_size=24, local_steps=1)
CLIP = 2.0


class Plain(Task):
    layers: tuple[nn.Module, ...] = ()

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 8), *self.layers, nn.Tanh(), nn.Linear(8, 3))

    def train_data(self, data: NodeData) -> Dataset[Any]:
        generator = torch.Generator().manual_seed(4)
        x = torch.randn(50, 5, generator=generator) * torch.logspace(-2, 1, 50)[:, None]
        return TensorDataset(x, torch.randint(0, 3, (50,), generator=generator))


class Unmappable(Plain):
    """Its loss looks at values, which `vmap` does not allow."""

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        x, y = batch
        logits = model(x)
        if logits.abs().max().item() > 1e9:
            logits = logits * 0
        return LossOutput(functional.cross_entropy(logits, y), len(y))


class Named(Dataset[Any]):
    def __len__(self) -> int:
        return 50

    def __getitem__(self, i: int) -> Any:
        x, y = Plain().train_data(NodeData())[i]
        return {"x": x, "y": y, "name": f"example {i}"}


class ByName(Plain):
    def train_data(self, data: NodeData) -> Dataset[Any]:
        return Named()

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        assert isinstance(batch, Mapping)
        return super().loss(model, (batch["x"], batch["y"]))


def model_of(task: Task) -> nn.Module:
    torch.manual_seed(9)
    return task.model()


def summed(task: Task, model: nn.Module, **changes: Any) -> tuple[dict[str, Tensor], FitResult]:
    given = {
        "indices": torch.arange(3, 48),
        "settings": SETTINGS,
        "round": 2,
        "rounds": 5,
        "seed": 11,
        "roster_index": 1,
        "device": CPU,
        "clip": CLIP,
        **changes,
    }
    limits = {name: given.pop(name) for name in ("clip", "norm") if name in given}
    fit = FitSettings(given.pop("settings"), given.pop("indices"), **given)
    return per_example_sum(task, model, task.train_data(NodeData()), fit, **limits)


def naive(model: nn.Module, norm: int, clip: float = CLIP) -> tuple[dict[str, Tensor], list[float]]:
    """The same sum example by example, written out; and the norms."""
    order = torch.randperm(45, generator=torch.Generator().manual_seed(derive_seed(11, "batches", 2, 1)))[:24]
    x, y = Plain().train_data(NodeData()).tensors  # type: ignore[attr-defined]
    total: dict[str, Tensor] = {}
    norms = []
    for i in torch.arange(3, 48)[order].tolist():
        model.zero_grad()
        functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        gradients = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
        flat = torch.cat([g.flatten() for g in gradients.values()])
        norms.append(flat.norm(norm).item())
        for name, g in gradients.items():
            total[name] = total.get(name, 0) + g * min(1.0, clip / norms[-1])
    return total, norms


def require_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, g in wanted.items():
        torch.testing.assert_close(found[name].double(), g, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", [Plain(), Unmappable(), ByName()], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize(("norm", "clip"), [("l2", CLIP), ("l1", 8.0)])
def test_equals_a_loop_written_out(task: Task, norm: Any, clip: float) -> None:
    wanted, norms = naive(model_of(task), int(norm[1]), clip)
    assert min(norms) < clip < max(norms)
    found, _ = summed(task, model_of(task), norm=norm, clip=clip)
    require_close(found, wanted)


@pytest.mark.parametrize("held", [1, 1000, 64 << 20])
def test_how_many_are_held_together_changes_nothing(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_example, "GRADIENTS_BYTES", held)
    require_close(summed(Plain(), model_of(Plain()))[0], naive(model_of(Plain()), 2)[0])


def test_examples_are_mapped_where_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    each = Plain.loss

    def loss(self: Task, model: nn.Module, batch: Any) -> LossOutput:
        seen.append(len(batch[1]))
        return each(self, model, batch)

    monkeypatch.setattr(Plain, "loss", loss)
    summed(Plain(), model_of(Plain()))
    assert seen == [1]


def test_no_example_moves_the_sum_by_more_than_the_clip() -> None:
    all_but_one = {"settings": TrainingSection(batch_size=45, local_steps=1), "round": 2}
    model = model_of(Plain())
    whole, _ = summed(Plain(), model, **all_but_one)
    for left_out in (3, 20, 47):
        indices = torch.tensor([i for i in range(3, 48) if i != left_out])
        less, _ = summed(Plain(), model, indices=indices, **all_but_one)
        moved = torch.cat([(whole[name] - less[name]).flatten() for name in whole]).norm()
        assert 0 < moved <= CLIP * (1 + 1e-4)


def test_the_parameters_stay_and_nothing_is_told_of_the_data() -> None:
    model = model_of(Plain())
    before = {name: p.clone() for name, p in model.state_dict().items()}
    found, result = summed(Plain(), model)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert set(found) == set(before)
    assert result == FitResult(examples=1, steps=1, metrics={})


def test_frozen_parameters_have_no_part() -> None:
    model = model_of(Plain())
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    found, _ = summed(Plain(), model)
    wanted, _ = naive(model, 2)
    assert "0.weight" not in found
    require_close(found, wanted)


def test_a_parameter_without_part_in_the_loss_has_zeros() -> None:
    for task in (Plain(), Unmappable()):
        model = model_of(task)
        model.extra = nn.Parameter(torch.ones(4))
        model.forward = lambda x, model=model: model[2](model[1](model[0](x)))
        found, _ = summed(task, model)
        assert torch.equal(found["extra"], torch.zeros(4))
        assert found["0.weight"].norm() > 0


class Dropping(Plain):
    layers = (nn.Dropout(0.5),)


def test_each_example_has_its_own_dropout_and_it_is_repeatable() -> None:
    one, two = (summed(Dropping(), model_of(Dropping()))[0] for _ in range(2))
    other, _ = summed(Dropping(), model_of(Dropping()), seed=12)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


class Normed(Plain):
    layers = (nn.BatchNorm1d(8),)


class Grouped(Plain):
    layers = (nn.GroupNorm(2, 8),)


class Fitting(Plain):
    own_fit = True

    def fit(self, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult:
        return FitResult(1, 1, {})


class Dead(Plain):
    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        raise RuntimeError("the disk is on fire")


def test_what_mixes_the_examples_is_refused() -> None:
    with pytest.raises(SpecError, match=r"exchange\.codec.*'1' \(BatchNorm1d\) mixes.*GroupNorm"):
        summed(Normed(), model_of(Normed()))
    with pytest.raises(SpecError, match=r"exchange\.codec.*Fitting has its own fit"):
        summed(Fitting(), model_of(Fitting()))
    assert summed(Grouped(), model_of(Grouped()))[0]


def test_errors_of_the_task_and_its_data_are_named() -> None:
    with pytest.raises(TaskError, match="the disk is on fire"):
        summed(Dead(), model_of(Dead()))
    with pytest.raises(TaskError, match="empty"):
        summed(Plain(), model_of(Plain()), indices=torch.empty(0, dtype=torch.int64))
    model = model_of(Plain())
    with torch.no_grad():
        model[0].bias[0] = float("nan")  # type: ignore[index]
    with pytest.raises(TaskError, match="not finite"):
        summed(Plain(), model)


def test_it_can_be_cancelled_between_examples() -> None:
    class Cancelled(Exception):
        pass

    def cancel() -> None:
        raise Cancelled

    with pytest.raises(TaskError, match="Cancelled"):
        summed(Plain(), model_of(Plain()), each_step=cancel)


class Zeroed(Plain):
    """One example counts for nothing: the neighbour that the privacy is about."""

    def __init__(self, example: int) -> None:
        super().__init__()
        self.left_out = Plain().train_data(NodeData())[example][0]

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        x, y = batch
        return LossOutput(functional.cross_entropy(model(x), y) * (x != self.left_out).any(), len(y))


def test_an_example_without_gradient_moves_the_sum_by_the_clip_at_most_and_no_other() -> None:
    model = model_of(Plain())
    whole, _ = summed(Plain(), model)
    moved = []
    for example in range(3, 48):
        less, _ = summed(Zeroed(example), model)
        moved.append(torch.cat([(whole[name] - less[name]).flatten() for name in whole]).norm().item())
    assert max(moved) == pytest.approx(CLIP, rel=1e-4)
    assert sum(value > 1e-6 for value in moved) == SETTINGS.batch_size


@pytest.mark.parametrize("order", [1, 2])
def test_the_norm_of_many_elements_is_exact_enough_to_clip_by(order: int) -> None:
    rows = torch.randn(2, 1_500_000, generator=torch.Generator().manual_seed(1))
    factors = per_example._factors({"a": rows[:, :1_000_000], "b": rows[:, 1_000_000:].view(2, 500, 1000)}, 1.0, order)
    norms = torch.linalg.vector_norm(rows.double(), order, dim=1)
    torch.testing.assert_close(factors * norms, torch.ones(2, dtype=torch.float64), rtol=1e-6, atol=0)
