"""FedEnsemble: plain averaging, whose rounds are also evaluated as an ensemble of the nodes' models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from covey.machines.evaluation import is_due
from covey.methods.averaging import Averaging
from covey.methods.contract import Combination, FinishContext, Made
from covey.metrics import counted


class FedEnsemble(Averaging):
    """Training is that of plain averaging; what is evaluated too is the sum of the outputs of a round's trained models.

    The baseline of Zhu, Hong and Zhou, "Data-Free Knowledge Distillation for Heterogeneous Federated Learning" (ICML
    2021, arXiv 2105.10056), as in the authors' code: the logits of the nodes' models are added up, without weights.
    Metrics `ensemble/NAME` of the task's central data are on record with each version that is evaluated.

    Deviation: the ensemble is that of the round's accepted nodes. The authors' has all nodes, of which those that
    did not train hold the model of the round before.

    All models of the ensemble are in memory at the coordinator's worker at once.
    """

    modes: ClassVar[frozenset[str]] = frozenset({"rounds"})

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """A coordinator that cannot evaluate the nodes' models, or nodes that send none."""
        yield from needs_models(run, "fedensemble")
        if not run.central:
            yield "method.name", '"fedensemble" evaluates on central data, and the task has none here; choose "none"'
        if run.local:
            yield ("method.name", '"fedensemble" evaluates whole models, and some tensors stay on nodes; choose "none"')

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """The ensemble's metrics, where the version is one of those that are evaluated."""
        spec = context.form.spec
        if not is_due(context.round, spec.evaluation.every, last=context.round == spec.rounds_in_all):
            return Made()
        ensemble = Ensemble([update.model() for update in context.updates.values()])
        measured = counted(context.evaluate(ensemble))
        return Made(metrics={f"ensemble/{name}": value for name, value in measured.items()})


def needs_models(run: Combination, method: str) -> Iterator[tuple[str, str]]:
    """Refusals of what hides the nodes' own models from the coordinator."""
    spec = run.spec
    if spec.exchange.payload == "gradient":
        yield "exchange.payload", f'"{method}" needs trained models, and a gradient is none; choose "delta"'
    if run.codec.signs:
        text = (
            f'"{method}" needs trained models, which signs ({spec.exchange.codec!r}) do not give; choose "none", or a '
        )
        yield "exchange.codec", text + "codec with magnitudes"


class Ensemble(nn.Module):
    """Several models as one whose output is the sum of theirs."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Of any inputs: what each model gives, added up in order."""
        return torch.stack([model(*inputs) for model in self.models]).sum(0)
