"""PAWS and SuNCEt: what is learned from, what is shown to others, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from covey.errors import PolicyError, SpecError, TaskError
from covey.learning.models.state import tensors_of
from covey.learning.task import FitSettings, NodeData, Task
from covey.learning.training.loop import train
from covey.methods.representations.paws import BANK, Assigned, PawsOptions
from covey.methods.representations.semi_supervised import SemiSupervisedOptions
from covey.methods.representations.suncet import Contrasted, SunCEtOptions
from covey.seeds import derive_seed
from covey.spec import TrainingSection
from covey.testing.method_rounds import MethodRounds, PlainExample, examples, spec_of
from covey.worker.jobs.training import TrainLimits

PLAIN = {"task": {"name": "covey.testing.method_rounds:PlainExample"}}


class Unlabelled(PlainExample):
    """It names no labels."""

    def labels(self, dataset: object) -> Tensor | None:
        return None


def trained(recipe: Any, data: TensorDataset, task: Task | None = None) -> dict[str, Tensor]:
    torch.manual_seed(3)
    task = task or PlainExample()
    model, training = task.model(), TrainingSection(local_steps=4, batch_size=8, learning_rate=0.1)
    indices, cpu = torch.arange(len(data)), torch.device("cpu")
    fit = FitSettings(training, indices, round=1, rounds=1, seed=1, roster_index=0, device=cpu)
    train(task, model, data, fit, recipe=recipe)
    return {name: tensor.clone() for name, tensor in tensors_of(model).items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("recipe", "options"), [(Assigned, PawsOptions(labelled=6)), (Contrasted, SunCEtOptions(labelled=6))]
)
def test_labels_beyond_the_labelled_examples_are_not_learned_from(
    recipe: type[Any], options: SemiSupervisedOptions
) -> None:
    data = examples(40, 1)
    x, y = data.tensors
    order = torch.randperm(40, generator=torch.Generator().manual_seed(derive_seed(1, "labelled", 0)))
    known = torch.cat([order[y[order] == label][:6] for label in (0, 1)])
    turned = y.clone()
    unknown = torch.ones(40, dtype=torch.bool)
    unknown[known] = False
    turned[unknown] = -100
    first = trained(recipe(options), data)

    class Told(PlainExample):
        """Says which examples are labelled as before, whatever their labels in the batches are."""

        def labels(self, dataset: object) -> Tensor | None:
            return y

    assert same(first, trained(recipe(options), TensorDataset(x, turned), Told()))
    turned = y.clone()
    turned[known] = 1 - y[known]
    assert not same(first, trained(recipe(options), TensorDataset(x, turned), Told()))


@pytest.mark.parametrize(("recipe", "options"), [(Assigned, PawsOptions), (Contrasted, SunCEtOptions)])
def test_with_weight_zero_only_labelled_examples_are_learned_from(recipe: type[Any], options: type[Any]) -> None:
    data, others = examples(40, 1), examples(40, 9)
    alone = trained(recipe(options(labelled=30, weight=0.0)), data)
    assert same(alone, trained(recipe(options(labelled=30, weight=0.0, temperature=3.0)), data))
    assert not same(alone, trained(recipe(options(labelled=30)), data))
    assert not same(alone, trained(recipe(options(labelled=30, weight=0.0)), others))


def test_the_bank_is_what_the_model_that_came_down_makes_of_labelled_examples(tmp_path: Path) -> None:
    options = {"labelled": 3, "bank": 2, "support": 2}
    run = MethodRounds(spec_of("paws", options, **PLAIN), tmp_path)
    model = PlainExample().model()
    model.load_state_dict(run.tensors())
    result = run.round()
    sent = run.members[BANK]["n0"].read_bytes()
    bank = torch.frombuffer(bytearray(sent), dtype=torch.float32).view(2, options["bank"], 6)
    assert isinstance(model, nn.Sequential)
    x, y = PlainExample().train_data(NodeData()).tensors
    known = functional.normalize(model[:2](x)).detach()
    for label, embeddings in enumerate(bank):
        nearest = (embeddings[:, None] - known).norm(dim=2).min(1)
        assert nearest.values.max() < 1e-5
        assert y[nearest.indices].tolist() == [label] * options["bank"]
    assert result.metrics["bank/bytes"] == (3.0 * 2 * 2 * 6 * 4, 1.0)
    assert result.metrics["bank/embeddings"] == (3.0 * 2 * 2, 1.0)


def test_a_node_without_a_label_shows_nothing_of_it(tmp_path: Path) -> None:
    shards = {"partition": "shards", "shards_per_node": 1}
    run = MethodRounds(spec_of("paws", {"labelled": 3, "bank": 2}, data=shards, **PLAIN), tmp_path, nodes=2)
    assert run.round().metrics["bank/embeddings"][0] < 2 * 2 * 2
    run.round()


def test_what_others_showed_is_learned_from_in_the_next_round(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("paws", {"labelled": 3, "bank": 2, "support": 2}, **PLAIN), tmp_path)
    run.round()
    with_others = run.train("n0", 2, attempt="with").parts[0].path.read_bytes()
    without = run.train("n0", 2, attempt="without", others={}).parts[0].path.read_bytes()
    assert with_others != without


def test_a_node_declines_to_show_embeddings_unless_its_operator_allows_it(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("paws", {"labelled": 3, "bank": 2}, **PLAIN), tmp_path / "shown")
    with pytest.raises(PolicyError, match=r"makes of single examples.*\[policy\] representations in node.toml"):
        run.train("n0", limits=TrainLimits())
    alone = MethodRounds(spec_of("paws", {"labelled": 3}, **PLAIN), tmp_path / "alone")
    assert alone.train("n0", limits=TrainLimits()).parts


@pytest.mark.parametrize("name", ["paws", "suncet"])
def test_a_task_without_views_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match=rf'"{name}" compares views.*`view\(batch, generator\)`'):
        MethodRounds(spec_of(name, task={"name": "synthetic"}), tmp_path)


def test_a_larger_bank_than_labelled_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"method\.options\.bank: a node shows labelled examples, and has 3"):
        MethodRounds(spec_of("paws", {"labelled": 3, "bank": 4}), tmp_path)


def test_a_task_without_labels_is_told_so_on_the_node(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("suncet", task={"name": f"{__name__}:Unlabelled"}), tmp_path)
    with pytest.raises(TaskError, match='"suncet" needs some labels'):
        run.train("n0")
