"""What leaves a node, as its operator's filters let it pass (`covey.outgoing.filters`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import TypeVar

import torch
from torch import Tensor

from covey.codecs.contract import Codec
from covey.errors import PolicyError, TaskError
from covey.layout import Layout
from covey.learning.models.flat import cut
from covey.learning.task import task_errors
from covey.metrics import Metrics, Totals, counted, missing
from covey.outgoing.filters import FILTERS, Leaving, OutgoingFilter
from covey.vectors import BLOCK_ELEMENTS, TensorVector, Vector, is_finite, spans
from covey.worker.jobs.training import FilterOrder

T = TypeVar("T")


class Filters:
    """A node's filters, in their order.

    Args:
        orders: The operator's.
        codec: The run's.

    Raises:
        PluginError: One of them is not installed here.
        SpecError: Its options are wrong.
        PolicyError: The codec's noise hides examples by what only training has bounded.
    """

    def __init__(self, orders: Sequence[FilterOrder], codec: Codec) -> None:
        if orders and codec.private:
            raise PolicyError(
                "this run's codec adds the noise that hides examples, to values that training alone has bounded: "
                "after a filter its account would not hold ([[policy.outgoing]] in node.toml)"
            )
        self._filters: list[tuple[str, OutgoingFilter]] = [
            (order.name, FILTERS.make(order.name, order.options, f"policy.outgoing.{place}", allow_path=True))
            for place, order in enumerate(orders)
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """Their names and versions, for the record."""
        packages = {plugin.name: plugin.package for plugin in FILTERS.installed()}
        return tuple(
            " ".join(filter(None, [name, each.version or (version(packages[name]) if name in packages else "")]))
            for name, each in self._filters
        )

    def vector(self, vector: Vector, layout: Layout, leaving: Leaving) -> Vector:
        """What leaves in the place of a vector, float32 `[layout.numel]`; with filters it is whole in memory."""
        if not self._filters:
            return vector
        flat = torch.empty(vector.d)
        for columns in spans(vector.d, BLOCK_ELEMENTS):
            flat[columns] = vector.read(columns)
        return TensorVector(self.flat(flat, layout, leaving))

    def flat(self, flat: Tensor, layout: Layout, leaving: Leaving) -> Tensor:
        """What leaves in the place of a flat vector, `[layout.numel]`, of the dtype that the layout has."""
        if not self._filters:
            return flat
        passed = self.tensors(cut(flat.clone(), layout), leaving)
        whole = torch.cat([flat[:0], *(passed[tensor.name].reshape(-1) for tensor in layout.tensors)])
        if not is_finite(whole):
            raise TaskError(f"the outgoing filters have made values that are not finite of part {leaving.part!r}")
        return whole

    def tensors(self, tensors: Mapping[str, Tensor], leaving: Leaving) -> Mapping[str, Tensor]:
        """What leaves in the place of tensors.

        Raises:
            PolicyError: A filter refuses.
            TaskError: A filter failed, or what it made has another form.
        """
        for name, each in self._filters:
            result = _asked(name, leaving, partial(each.tensors, tensors, leaving))
            _require_form(name, tensors, result)
            tensors = result
        return tensors

    def content(self, content: bytes, leaving: Leaving, most: int) -> bytes:
        """What leaves in the place of a part that is no tensors, of at most so many bytes; errors as `tensors`."""
        for name, each in self._filters:
            content = _asked(name, leaving, partial(each.content, content, leaving))
            if not isinstance(content, bytes) or len(content) > most:
                raise TaskError(
                    f"outgoing filter {name!r} has made no bytes of part {leaving.part!r}, or more than {most}"
                )
        return content

    def metrics(self, metrics: Metrics, leaving: Leaving) -> Metrics:
        """What leaves in the place of metrics; why some are missing, is said as it is. Errors as `tensors`."""
        passed: Mapping[str, Totals] = counted(metrics)
        for name, each in self._filters:
            result = _asked(name, leaving, partial(each.metrics, dict(passed), leaving))
            if not _are_some_of(result, passed):
                raise TaskError(
                    f"outgoing filter {name!r} has made other metrics than there were, or no finite (total, count), of "
                    f"{leaving.part}"
                )
            passed = {key: (float(total), float(count)) for key, (total, count) in result.items()}
        return {**passed, **missing(metrics)}

    def of_part(self, tensors: Mapping[str, Tensor], leaving: Leaving) -> Mapping[str, Tensor]:
        """What leaves in the place of the model's own tensors, of which filters get copies on the CPU."""
        if not self._filters:
            return tensors
        return self.tensors({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, leaving)


def _asked(name: str, leaving: Leaving, ask: Callable[[], T]) -> T:
    try:
        with task_errors(f"outgoing filter {name!r}"):
            return ask()
    except PolicyError as error:
        raise PolicyError(
            f"this site's outgoing filter {name!r} lets part {leaving.part!r} not pass: {error}"
        ) from error


def _are_some_of(result: object, given: Mapping[str, Totals]) -> bool:
    return (
        isinstance(result, Mapping)
        and result.keys() <= given.keys()
        and all(
            isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(number, int | float) for number in pair)
            for pair in result.values()
        )
        and all(_is_finite(pair) or not _is_finite(given[name]) for name, pair in result.items())
    )


def _is_finite(pair: Totals) -> bool:
    try:
        return all(math.isfinite(number) for number in pair)
    except OverflowError:  # a whole number that no float can be
        return False


def _require_form(name: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    if set(after) != set(before):
        others = sorted(set(after) ^ set(before))
        raise TaskError(f"outgoing filter {name!r} has made other tensors than there were: {others}")
    for key, old in before.items():
        new = after[key]
        if not isinstance(new, Tensor) or new.shape != old.shape or new.dtype != old.dtype:
            form = f"{tuple(old.shape)}, {old.dtype}"
            raise TaskError(f"outgoing filter {name!r} has made another shape or dtype of {key!r} than {form}")
