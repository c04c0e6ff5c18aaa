"""The conformance suite of outgoing filters: subclass, and give your filter."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from covey.errors import PolicyError
from covey.outgoing.filters import EVALUATION, TRAINING, Leaving, OutgoingFilter

CASES: Mapping[str, Mapping[str, Tensor]] = {
    "a change": {"weight": torch.linspace(-1.0, 1.0, 12).reshape(3, 4), "bias": torch.full((3,), 0.5)},
    "a large one": {"weight": torch.full((3, 4), 1e6)},
    "zeros": {"weight": torch.zeros(3, 4)},
    "no elements": {"weight": torch.zeros(0, 4)},
    "buffers": {"running_mean": torch.ones(4, dtype=torch.float64), "batches": torch.tensor(7)},
}


class OutgoingFilterConformance(ABC):
    """Of a filter on what leaves a site. Set `payloads` where it refuses some of them altogether."""

    payloads: tuple[str, ...] = ("delta", "gradient", "parameters")

    @abstractmethod
    def make(self) -> OutgoingFilter:
        """The filter."""

    def passed(self, tensors: Mapping[str, Tensor], leaving: Leaving) -> Mapping[str, Tensor] | str:
        """What it makes of copies of tensors, or why it refuses."""
        try:
            return self.make().tensors({name: tensor.clone() for name, tensor in tensors.items()}, leaving)
        except PolicyError as error:
            return str(error)

    @pytest.mark.parametrize("payload", ["delta", "gradient", "parameters"])
    @pytest.mark.parametrize("case", CASES)
    def test_it_keeps_the_form_or_refuses_with_a_reason(self, case: str, payload: str) -> None:
        """Names, shapes and dtypes are what the run expects; values are finite."""
        part = "buffers" if case == "buffers" else "model"
        passed = self.passed(CASES[case], Leaving("run", 1, part, payload, 100))
        if isinstance(passed, str):
            assert passed.strip()
            return
        assert set(passed) == set(CASES[case])
        for name, tensor in CASES[case].items():
            assert (passed[name].shape, passed[name].dtype) == (tensor.shape, tensor.dtype)
            assert not passed[name].is_floating_point() or bool(passed[name].isfinite().all())

    def test_it_lets_something_pass(self) -> None:
        """A filter that refuses everything is a node that takes no part."""
        small = {"weight": torch.full((2, 2), 1e-3)}
        passed = [self.passed(small, Leaving("run", 1, "model", payload, 10_000)) for payload in self.payloads]
        assert all(not isinstance(each, str) for each in passed), passed

    def test_the_same_update_passes_in_the_same_way(self) -> None:
        """What is made again after a crash has the same bytes."""
        leaving = Leaving("run", 3, "model", self.payloads[0], 100)
        first, again = (self.passed(CASES["a change"], leaving) for _ in range(2))
        if isinstance(first, str) or isinstance(again, str):
            assert first == again
        else:
            assert all(torch.equal(first[name], again[name]) for name in first)

    def test_bytes_pass_as_bytes(self) -> None:
        """A part that is no tensors becomes no longer."""
        with contextlib.suppress(PolicyError):
            passed = self.make().content(b"counts", Leaving("run", 1, "counts", "delta", 100))
            assert isinstance(passed, bytes)
            assert len(passed) <= len(b"counts")

    @pytest.mark.parametrize("what", [TRAINING, EVALUATION])
    def test_metrics_pass_as_some_of_what_they_were(self, what: str) -> None:
        """None has another name, and each that passes is a (total, count) of finite numbers, the same each time."""
        metrics = {"loss": (12.5, 10.0), "accuracy": (7.0, 10.0), "alone/accuracy": (1e12, 1e12)}
        leaving = Leaving("run", 1, what, self.payloads[0], 10)
        with contextlib.suppress(PolicyError):
            passed, again = (self.make().metrics(dict(metrics), leaving) for _ in range(2))
            assert passed.keys() <= metrics.keys()
            assert all(math.isfinite(total) and math.isfinite(count) for total, count in passed.values())
            assert dict(passed) == dict(again)
