"""The predictor of a task's model: its last layers, whose tensors travel with the model, apart from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from covey.errors import SpecError
from covey.learning.models.entries import unwrapped
from covey.learning.representations.features import blank_model_of
from covey.learning.task import Task, task_errors
from covey.methods.parts import RunForm
from covey.vectors import Vector


@dataclass(frozen=True)
class Predictor:
    """What is known of it without values.

    Attributes:
        module: The predictor; its own values are never used.
        names: Of its parameters: name in the predictor to name in the model.
        places: Of each, by its name in the predictor: where it is in the run's vector of parameters, and its shape.
        width: Of what goes in (`z`): `[n, width]`.
        classes: Of what comes out: logits `[n, classes]`.
    """

    module: nn.Module
    names: Mapping[str, str]
    places: Mapping[str, tuple[slice, tuple[int, ...]]]
    width: int
    classes: int

    def values(self, base: Vector, step: Vector | None = None) -> dict[str, Tensor]:
        """The predictor's parameters in a vector of all of them, float32, by name; moved by another vector."""
        values = {}
        for name, (place, shape) in self.places.items():
            flat = base.read(place).clone()
            if step is not None:
                flat += step.read(place)
            values[name] = flat.view(shape)
        return values

    def of(self, model: nn.Module) -> dict[str, Tensor]:
        """The same parameters of a model, by name, not copied."""
        own = dict(unwrapped(model).named_parameters())
        return {name: own[whole] for name, whole in self.names.items()}

    def logits(self, values: Mapping[str, Tensor], z: Tensor) -> Tensor:
        """What the predictor with these parameters makes of `z` `[n, width]`: `[n, classes]`."""
        logits: Tensor = torch.func.functional_call(self.module, dict(values), (z,))
        return logits


def predictor_of(form: RunForm, method: str) -> Predictor:
    """The predictor that a run's task names.

    Raises:
        SpecError: The task names none, or one that cannot be used apart: the message says what to do.
        TaskError: The task's code failed.
    """
    task, who = form.task(), f"task {form.spec.task.name!r}"
    model = blank_model_of(task)
    predictor = predictor_in(task, model, method, who).eval()
    known = {id(parameter): name for name, parameter in unwrapped(model).named_parameters()}
    parameters = dict(predictor.named_parameters())
    if not all(id(parameter) in known for parameter in parameters.values()):
        raise SpecError(
            f"method.name: the predictor that `split` of {who} returns has parameters that are not the model's; make "
            "it of the model's own modules"
        )
    names, places = {name: known[id(parameter)] for name, parameter in parameters.items()}, _places(form)
    if missing := sorted(set(names.values()) - set(places)):
        raise SpecError(
            f'method.name: "{method}" needs the whole predictor to travel, and {missing[0]!r} stays on the nodes; let '
            "what stays there be the extractor's"
        )
    own = {name: places[whole] for name, whole in names.items()}
    return Predictor(predictor, names, own, *widths(predictor))


def predictor_in(task: Task, model: nn.Module, method: str, who: str) -> nn.Module:
    """The predictor of a model of the task, as a module of the model's own. Raises as `predictor_of`."""
    with task_errors("Task.split"):
        split = task.split(unwrapped(model))
    if split is None:
        raise SpecError(
            f'method.name: "{method}" needs the predictor apart, and {who} names none; give the task a `split` that '
            "returns Split(extractor, predictor), such as Split(model[:-1], model[-1])"
        )
    predictor = split.predictor
    if not _linear(predictor) or next(predictor.buffers(), None) is not None:
        raise SpecError(
            f'method.name: "{method}" needs a predictor of linear layers without buffers (BatchNorm), and that of '
            f"{who} is none; let `split` cut the model nearer to its end"
        )
    return predictor


def widths(predictor: nn.Module) -> tuple[int, int]:
    """How wide a predictor's input is, and for how many classes it gives logits."""
    layers = _linear(predictor)
    return layers[0].in_features, layers[-1].out_features


def _linear(predictor: nn.Module) -> list[nn.Linear]:
    return [module for module in predictor.modules() if isinstance(module, nn.Linear)]


def _places(form: RunForm) -> dict[str, tuple[slice, tuple[int, ...]]]:
    places, at = {}, 0
    for tensor in form.layout.part("model").tensors:
        places[tensor.name] = slice(at, at + tensor.numel), tensor.shape
        at += tensor.numel
    return places
