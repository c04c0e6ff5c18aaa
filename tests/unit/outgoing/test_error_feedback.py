from __future__ import annotations

import pytest
import torch
from torch import Tensor

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.scaled_sign import ScaledSign
from covey.codecs.sparse import RandomK, TopK
from covey.errors import TaskError
from covey.outgoing.error_feedback import lost, with_residual
from covey.testing.codecs import StrictSource, encoded, gaussian
from covey.vectors import TensorVector, spans

D, ROUNDS = 1003, 12


def step(codec: Codec, vector: Tensor, residual: Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    """One round of error feedback: what arrives, and what is kept."""
    old = None if residual is None else StrictSource(residual)
    source = with_residual(StrictSource(vector), old)
    reader = codec.reader(encoded(codec, source, CodecContext(seed=seed, round=1)), D)
    left = lost(source, reader)
    kept = torch.cat([left.read(columns).clone() for columns in spans(D, 100)])
    return reader.read(slice(0, D)).clone(), kept


@pytest.mark.parametrize("codec", [ScaledSign(), TopK({"k": 30}), RandomK({"k": 30})], ids=lambda c: type(c).__name__)
def test_all_that_was_sent_and_the_residual_are_the_sum_of_all_vectors(codec: Codec) -> None:
    total, sent, residual = torch.zeros(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64), None
    for seed in range(ROUNDS):
        vector = gaussian(D, seed)
        arrived, residual = step(codec, vector, residual, seed)
        total, sent = total + vector, sent + arrived
    assert residual is not None
    assert residual.norm() > 0.1 * total.norm()
    torch.testing.assert_close(sent + residual, total, rtol=1e-5, atol=1e-4)


def test_without_a_residual_the_vector_itself_is_encoded() -> None:
    vector = gaussian(D)
    assert torch.equal(with_residual(TensorVector(vector), None).read(slice(3, 500)), vector[3:500])


def test_what_top_k_sends_is_gone_from_the_residual_to_the_bit() -> None:
    vector = gaussian(D)
    arrived, kept = step(TopK({"k": 30}), vector, None, 0)
    assert torch.equal(arrived + kept, vector)
    assert int((kept == 0).sum()) == 30


def test_with_feedback_the_mean_of_what_arrives_finds_the_mean_vector() -> None:
    vector, residual, sent = gaussian(D), None, torch.zeros(D)
    alone, _ = step(TopK({"k": 30}), vector, None, 0)
    for _ in range(400):
        arrived, residual = step(TopK({"k": 30}), vector, residual, 0)
        sent += arrived / 400
    assert (sent - vector).norm() < 0.2 * (alone - vector).norm()


def test_a_residual_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one length, not of \[2, 3\]"):
        with_residual(TensorVector(torch.ones(2)), TensorVector(torch.ones(3)))


def test_a_sum_that_overflows_is_an_error() -> None:
    huge = torch.full((10,), 3e38)
    with pytest.raises(TaskError, match="not finite"):
        with_residual(TensorVector(huge), TensorVector(huge)).read(slice(0, 10))
