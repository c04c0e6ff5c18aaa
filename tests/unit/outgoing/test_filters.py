"""The filter that comes along, and what is held against every filter."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from covey.codecs.contract import CODECS
from covey.errors import PluginError, PolicyError, SpecError, TaskError
from covey.layout import Layout, TensorSpec
from covey.outgoing.clip_norm import ClipNorm
from covey.outgoing.filters import Leaving, OutgoingFilter
from covey.testing.outgoing.filters import OutgoingFilterConformance
from covey.vectors import TensorVector
from covey.worker.execute.updates.filtered import Filters
from covey.worker.jobs.training import FilterOrder

LAYOUT = Layout.of([TensorSpec("w", "float32", (2, 2)), TensorSpec("b", "float32", (1,))])
LEAVING = Leaving("run", 1, "model", "delta", 10)
HERE = f"{__name__}:"


class TestClipNorm(OutgoingFilterConformance):
    payloads = ("delta", "gradient")

    def make(self):
        return ClipNorm({"most": 2.0})


class Doubles(OutgoingFilter):
    version = "7"

    def tensors(self, tensors, leaving):
        return {name: tensor.mul_(2.0) for name, tensor in tensors.items()}

    def content(self, content, leaving):
        return content * 2


class Drops(OutgoingFilter):
    def tensors(self, tensors, leaving):
        return {"w": tensors["w"]}


class Turns(OutgoingFilter):
    def tensors(self, tensors, leaving):
        return {name: tensor.double() for name, tensor in tensors.items()}


class Explodes(OutgoingFilter):
    def tensors(self, tensors, leaving):
        return {name: tensor / 0 for name, tensor in tensors.items()}


class Fails(OutgoingFilter):
    def tensors(self, tensors, leaving):
        raise ZeroDivisionError


class Halves(OutgoingFilter):
    """Of metrics: says the loss in coarse steps, and nothing else; of few examples nothing."""

    def tensors(self, tensors, leaving):
        return tensors

    def metrics(self, metrics, leaving):
        if leaving.examples < 10:
            raise PolicyError(f"{leaving.examples} examples are too few")
        return {name: (round(total / count), 1.0) for name, (total, count) in metrics.items() if name == "loss"}


class Adds(Halves):
    def metrics(self, metrics, leaving):
        return {**metrics, "stowaway": (1.0, 1.0)}


class Hides(Halves):
    def metrics(self, metrics, leaving):
        return {name: (float("nan"), count) for name, (_, count) in metrics.items()}


class Overflows(Halves):
    def metrics(self, metrics, leaving):
        return {name: (total, 10**400) for name, (total, _) in metrics.items()}


class Ratios(Halves):
    def metrics(self, metrics, leaving):
        return {name: total / count for name, (total, count) in metrics.items()}


def filters(*names, codec="none", options=None):
    private = {"epsilon": 0.5, "delta": 1e-5, "clip": 1.0} if codec == "dp-sign" else {}
    return Filters([FilterOrder(name, options or {}) for name in names], CODECS.make(codec, private))


def test_a_large_change_is_scaled_down_and_a_small_one_passes_bit_by_bit():
    clip = filters("clip-norm", options={"most": 1.0})
    large, small = torch.tensor([3.0, 0.0, 0.0, 4.0, 0.0]), torch.tensor([0.3, 0.0, 0.0, 0.4, 0.0])
    assert torch.allclose(clip.flat(large, LAYOUT, LEAVING), large / 5)
    assert torch.equal(clip.flat(small, LAYOUT, LEAVING), small)
    with pytest.raises(PolicyError, match=r"'clip-norm' lets part 'model' not pass: .*\[exchange\] payload"):
        clip.flat(small, LAYOUT, Leaving("run", 1, "model", "parameters", 10))
    assert torch.equal(clip.flat(large, LAYOUT, Leaving("run", 1, "control", "delta", 10)), large)


def test_what_a_filter_writes_into_is_not_the_node_s_own():
    doubles, own = filters(f"{HERE}Doubles"), torch.arange(5.0)
    assert torch.equal(doubles.vector(TensorVector(own), LAYOUT, LEAVING).read(slice(0, 5)), torch.arange(5.0) * 2)
    assert torch.equal(doubles.of_part({"own": own}, LEAVING)["own"], torch.arange(5.0) * 2)
    assert torch.equal(own, torch.arange(5.0))
    assert doubles.names == (f"{HERE}Doubles 7",)
    twice = filters(f"{HERE}Doubles", f"{HERE}Doubles")
    assert torch.equal(twice.flat(own, LAYOUT, LEAVING), torch.arange(5.0) * 4)
    assert doubles.content(b"ab", LEAVING, 4) == b"abab"
    with pytest.raises(TaskError, match="or more than 3"):
        doubles.content(b"ab", LEAVING, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Drops", r"other tensors than there were: \['b'\]"),
        ("Turns", r"another shape or dtype of"),
        ("Explodes", r"values that are not finite of part 'model'"),
        ("Fails", r"Fails': ZeroDivisionError"),
    ],
)
def test_a_filter_that_breaks_the_form_or_fails_lets_nothing_out(name, message):
    with pytest.raises(TaskError, match=message):
        filters(HERE + name).flat(torch.ones(5), LAYOUT, LEAVING)


def test_a_filter_that_cannot_be_is_refused_before_anything_is_trained():
    with pytest.raises(PluginError, match=r"policy\.outgoing\.0\.name: no outgoing-filter named 'clip'"):
        filters("clip")
    with pytest.raises(SpecError, match=r"policy\.outgoing\.0\.options\.most"):
        filters("clip-norm")
    with pytest.raises(PolicyError, match="after a filter its account would not hold"):
        filters(f"{HERE}Doubles", codec="dp-sign")
    assert filters(codec="dp-sign").names == ()


def test_metrics_are_seen_changed_left_out_and_refused():
    metrics = {"loss": (41.0, 20.0), "accuracy": (7.0, 20.0), "auroc": "all examples are of one class"}
    leaving = Leaving("run", 1, "evaluation", "delta", 10)
    coarse = filters(f"{HERE}Halves", f"{HERE}Halves")
    assert coarse.metrics(metrics, leaving) == {"loss": (2, 1.0), "auroc": "all examples are of one class"}
    assert filters("clip-norm", options={"most": 1.0}).metrics(metrics, leaving) == metrics
    assert filters().metrics(metrics, leaving) == metrics
    with pytest.raises(PolicyError, match="lets part 'evaluation' not pass: 9 examples are too few"):
        coarse.metrics(metrics, replace(leaving, examples=9))


@pytest.mark.parametrize("name", ["Adds", "Ratios", "Hides", "Overflows"])
def test_a_filter_that_makes_other_metrics_lets_none_out(name):
    message = rf"{name}' has made other metrics than there were, or no finite \(total, count\), of training"
    with pytest.raises(TaskError, match=message):
        filters(HERE + name).metrics({"loss": (41.0, 20.0)}, Leaving("run", 1, "training", "delta", 10))


def test_a_loss_that_was_not_finite_before_is_not_laid_at_a_filter_s_door():
    passed = filters("clip-norm", options={"most": 1.0}).metrics({"loss": (math.inf, 20.0)}, LEAVING)
    assert passed == {"loss": (math.inf, 20.0)}
