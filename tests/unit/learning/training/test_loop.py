import copy
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from covey.errors import SpecError, TaskError
from covey.learning.recipe import PlainRecipe, RecipeContext
from covey.learning.task import FitResult, FitSettings, LossOutput, NodeData, Stat, Task
from covey.learning.training import loop
from covey.learning.training.loop import evaluate, gradient, train
from covey.seeds import derive_seed
from covey.spec import TrainingSection

CPU = torch.device("cpu")


class Blobs(Task):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))

    def train_data(self, data: NodeData) -> TensorDataset:
        g = torch.Generator().manual_seed(4)
        y = torch.randint(0, 3, (101,), generator=g)
        return TensorDataset(torch.randn(101, 5, generator=g) + y[:, None], y)


class Listed(Dataset[Any]):
    def __init__(self, source: TensorDataset) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Any:
        return self.source[i]


class Doubled(TensorDataset):
    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return 2 * x, y


def model_of(task: Task) -> nn.Module:
    torch.manual_seed(9)
    return task.model()


def fit(task: Task, model: nn.Module, dataset: Dataset[Any] | None = None, **changes: Any) -> FitResult:
    settings = changes.pop("settings", TrainingSection(local_epochs=2, batch_size=16))
    data = dataset if dataset is not None else task.train_data(NodeData())
    indices = changes.pop("indices", torch.arange(3, 90))
    given: Any = {"round": 2, "rounds": 5, "seed": 11, "roster_index": 1, "device": CPU, **changes}
    method = {name: given.pop(name) for name in ("recipe", "inputs") if name in given}
    return train(task, model, data, FitSettings(settings, indices, **given), **method)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_equals_a_plain_loop_bit_for_bit() -> None:
    task = Blobs()
    ours, plain = model_of(task), model_of(task)
    result = fit(task, ours, settings=TrainingSection(optimizer="momentum", local_epochs=3, batch_size=16))

    x, y = task.train_data(NodeData()).tensors
    x, y = x[3:90], y[3:90]
    order = torch.Generator().manual_seed(derive_seed(11, "batches", 2, 1))
    torch.manual_seed(derive_seed(11, "training", 2, 1))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    plain.train()
    losses, steps = 0.0, 0
    for _ in range(3):
        permutation = torch.randperm(87, generator=order)
        for start in range(0, 87, 16):
            rows = permutation[start : start + 16]
            optimizer.zero_grad()
            loss = functional.cross_entropy(plain(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            losses, steps = losses + loss.item() * len(rows), steps + 1
    assert same(ours, plain)
    assert (result.examples, result.steps) == (87, steps)
    assert result.metrics["loss"].count == 3 * 87
    assert result.metrics["loss"].total == pytest.approx(losses, rel=1e-6)


def test_steps_go_on_over_epochs() -> None:
    task = Blobs()
    by_epochs, by_steps = model_of(task), model_of(task)
    fit(task, by_epochs, settings=TrainingSection(local_epochs=2, batch_size=16))
    result = fit(task, by_steps, settings=TrainingSection(local_steps=12, batch_size=16))
    assert same(by_epochs, by_steps)
    assert result.steps == 12


@pytest.mark.parametrize("change", [{"round": 3}, {"seed": 12}, {"roster_index": 0}])
def test_randomness_follows_seed_round_and_node(change: dict[str, Any]) -> None:
    task = Blobs()
    first, again, other = model_of(task), model_of(task), model_of(task)
    fit(task, first)
    torch.rand(3)
    fit(task, again)
    fit(task, other, **change)
    assert same(first, again)
    assert not same(first, other)


def test_map_style_data_give_the_same_as_tensors() -> None:
    task = Blobs()
    tensors, listed = model_of(task), model_of(task)
    data = task.train_data(NodeData())
    assert fit(task, tensors, data).metrics == fit(task, listed, Listed(data)).metrics
    assert same(tensors, listed)


def test_a_tensor_data_set_that_changes_its_examples_is_asked_for_them() -> None:
    task = Blobs()
    x, y = task.train_data(NodeData()).tensors
    overridden, doubled = model_of(task), model_of(task)
    fit(task, overridden, Doubled(x, y))
    fit(task, doubled, TensorDataset(2 * x, y))
    assert same(overridden, doubled)


def test_many_gathered_windows_equal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Blobs()
    small, large = model_of(task), model_of(task)
    fit(task, large)
    monkeypatch.setattr("covey.learning.data.GATHER_BYTES", 1)
    fit(task, small)
    assert same(small, large)


def test_clipping_bounds_each_step() -> None:
    task = Blobs()
    model, before = model_of(task), model_of(task)
    fit(task, model, settings=TrainingSection(learning_rate=0.5, local_steps=1, clip_norm=1e-3))
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before.parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.5e-3, rel=1e-3)


def test_bf16_computes_coarsely_in_float32_parameters() -> None:
    task = Blobs()
    exact, coarse = model_of(task), model_of(task)
    fit(task, exact, settings=TrainingSection(local_steps=3))
    fit(task, coarse, settings=TrainingSection(local_steps=3, precision="bf16"))
    assert not same(exact, coarse)
    for a, b in zip(exact.parameters(), coarse.parameters(), strict=True):
        assert b.dtype == torch.float32
        assert torch.allclose(a, b, atol=0.05)


def test_kernels_without_a_deterministic_form_are_refused_when_asked() -> None:
    class Nondeterministic(Blobs):
        def loss(self, model: nn.Module, batch: Any) -> LossOutput:
            torch.zeros(3, 3).put_(torch.tensor([0]), torch.ones(1), accumulate=False)
            return super().loss(model, batch)

    task = Nondeterministic()
    with pytest.raises(TaskError, match="deterministic"):
        fit(task, model_of(task), settings=TrainingSection(deterministic="require"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert fit(task, model_of(task)).steps == 12


def test_a_diverged_training_says_so() -> None:
    task = Blobs()
    x, y = task.train_data(NodeData()).tensors
    x = x.clone()
    x[50] = torch.nan
    with pytest.raises(TaskError, match=r"diverged.*learning_rate"):
        fit(task, model_of(task), TensorDataset(x, y))


def test_user_errors_carry_their_text() -> None:
    class Broken(Blobs):
        def loss(self, model: nn.Module, batch: Any) -> LossOutput:
            raise KeyError("no such column")

    with pytest.raises(TaskError, match="local training: KeyError: 'no such column'"):
        fit(Broken(), model_of(Blobs()))


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(TaskError, match="empty"):
        fit(Blobs(), model_of(Blobs()), indices=torch.arange(0))


def test_progress_by_the_clock_and_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    quarter_s = loop.PROGRESS_INTERVAL_S / 4
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock) * quarter_s))
    reports: list[tuple[int, int, float]] = []
    steps: list[None] = []
    fit(
        Blobs(),
        model_of(Blobs()),
        progress=lambda *report: reports.append(report),
        each_step=lambda: steps.append(None),
    )
    assert [step for step, _, _ in reports] == [4, 8, 12]
    assert all(total == 12 and 0 < loss < 5 for _, total, loss in reports)
    assert len(steps) == 12


def test_each_step_can_end_the_training() -> None:
    class Stop(BaseException):
        pass

    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 5:
            raise Stop

    with pytest.raises(Stop):
        fit(Blobs(), model_of(Blobs()), each_step=stop)
    assert len(calls) == 5


class Proximal(PlainRecipe):
    def begin(self, context: RecipeContext) -> None:
        self.calls = [("begin", context.round)]
        self.anchor = [p.detach().clone() for p in context.model.parameters()]

    def loss(self, model: nn.Module, batch: Any, base: LossOutput) -> Tensor:
        self.calls.append(("loss", len(batch[0])))
        pairs = zip(model.parameters(), self.anchor, strict=True)
        return base.loss + 5.0 * torch.stack([(p - a).square().sum() for p, a in pairs]).sum()

    def before_step(self, model: nn.Module) -> None:
        self.calls.append(("before", sum(p.grad is not None for p in model.parameters())))

    def after_step(self, model: nn.Module) -> None:
        self.calls.append(("after", sum(p.grad is not None for p in model.parameters())))

    def finish(self) -> Mapping[str, Tensor]:
        return {"control": torch.ones(2)}


def test_recipe_is_called_in_order_and_changes_the_step() -> None:
    task, recipe = Blobs(), Proximal()
    near, free = model_of(task), model_of(task)
    start = copy.deepcopy(near)
    settings = TrainingSection(local_steps=2, batch_size=16)
    result = fit(task, near, recipe=recipe, settings=settings)
    fit(task, free, settings=settings)
    step = [("loss", 16), ("before", 6), ("after", 0)]
    assert recipe.calls == [("begin", 2), *step, *step]
    control = result.parts["control"]
    assert isinstance(control, torch.Tensor)
    assert torch.equal(control, torch.ones(2))

    def distance(model: nn.Module) -> float:
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        return sum((a - b).square().sum().item() for a, b in pairs)

    assert distance(near) < distance(free)


def test_gradient_is_the_mean_over_the_first_batch() -> None:
    task = Blobs()
    model, before = model_of(task), model_of(task)
    next(model.parameters()).requires_grad_(False)
    data = task.train_data(NodeData())
    found, result = gradient(
        task,
        model,
        data,
        FitSettings(
            TrainingSection(local_steps=1, batch_size=16),
            torch.arange(3, 90),
            round=2,
            rounds=5,
            seed=11,
            roster_index=1,
            device=CPU,
        ),
    )

    reference = model_of(task)
    order = torch.randperm(87, generator=torch.Generator().manual_seed(derive_seed(11, "batches", 2, 1)))
    x, y = (t[3:90][order[:16]] for t in data.tensors)
    torch.manual_seed(derive_seed(11, "training", 2, 1))
    loss = functional.cross_entropy(reference.train()(x), y)
    loss.backward()
    expected = {name: p.grad for name, p in reference.named_parameters() if name != "0.weight"}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], g) for name, g in expected.items() if g is not None)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert (result.examples, result.steps) == (87, 1)
    assert result.metrics["loss"].ratio == pytest.approx(loss.item())


class OwnFit(Blobs):
    own_fit = True

    def fit(self, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult:
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(torch.rand(()).item() + settings.round)
        return FitResult(len(settings.indices), 7, {"mine": Stat(1.0, 2.0)})


def test_own_fit_replaces_the_loop_under_the_same_seed() -> None:
    first, second = model_of(Blobs()), model_of(Blobs())
    result = fit(OwnFit(), first)
    fit(OwnFit(), second)
    assert (result.steps, result.metrics["mine"].ratio) == (7, 0.5)
    assert same(first, second)
    assert all(p.min() >= 2 for p in first.parameters())


def test_own_fit_gives_no_gradient() -> None:
    with pytest.raises(SpecError, match="OwnFit has its own fit"):
        gradient(
            OwnFit(),
            model_of(Blobs()),
            Blobs().train_data(NodeData()),
            FitSettings(TrainingSection(), torch.arange(9), round=1, rounds=1, seed=1, roster_index=0, device=CPU),
        )


def test_evaluation_equals_the_whole_at_once_and_changes_nothing() -> None:
    task = Blobs()
    model = model_of(task)
    before = copy.deepcopy(model)
    data = task.train_data(NodeData())
    found = evaluate(task, model, data, 16, CPU)
    assert same(model, before)
    x, y = data.tensors
    logits = before.eval()(x)
    assert found["accuracy"] == Stat((logits.argmax(1) == y).sum().item(), 101)
    assert found["loss"].ratio == pytest.approx(functional.cross_entropy(logits, y).item(), rel=1e-5)
    assert fit(task, model).steps == 12


def test_data_without_a_length_are_refused() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(TaskError, match="map-style"):
        evaluate(Blobs(), model_of(Blobs()), Stream(), 4, CPU)
