"""Bodies that a codec wrote: nothing of w z is lost, and one that is none costs its sender's share alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from covey.errors import SpecError, TaskError
from covey.learning.models.state import layout_of, write_model
from covey.worker.execute.mix_op import mix
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion
from tests.unit.worker.bombs import bombs

HOST: Any = None  # mixing asks nothing of it
CODECS: list[tuple[str, dict[str, Any]]] = [("bf16", {}), ("int8", {}), ("qsgd", {"bits": 8}), ("qsgd", {"bits": 16})]


class Model(nn.Module):
    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(values)
        self.register_buffer("mean", torch.zeros(2))


D = 3000
LAYOUT = layout_of(Model(torch.zeros(D)))


def values_of(seed: int) -> torch.Tensor:
    return torch.randn(D, generator=torch.Generator().manual_seed(seed))


def spec_of(codec: str, options: dict[str, Any]) -> str:
    exchange = {"codec": codec, "options": options}
    return json.dumps({"name": "run", "mode": "gossip", "task": {"name": "digits"}, "exchange": exchange})


def job_of(tmp_path: Path, codec: str, options: dict[str, Any], values: torch.Tensor) -> MixJob:
    base = tmp_path / "base"
    write_model(base, LAYOUT, Model(values))
    return MixJob(LAYOUT.to_json(), base, tmp_path / "out", spec_json=spec_of(codec, options), synced=False)


def made(job: MixJob) -> tuple[torch.Tensor, MixResult]:
    result = mix(job, HOST)
    return MappedModel(job.out, LAYOUT).read(slice(0, D)).clone(), result


@pytest.mark.parametrize(("codec", "options"), CODECS)
@pytest.mark.parametrize("given", [1.0, 7.0, 0.5])
def test_what_is_lost_of_what_goes_stays_with_the_sender(
    tmp_path: Path, codec: str, options: dict[str, Any], given: float
) -> None:
    z, change = values_of(1), values_of(2) * 0.1
    (tmp_path / "change").write_bytes(change.numpy().tobytes())
    job = job_of(tmp_path, codec, options, z)
    job = replace(job, applies=True, change=tmp_path / "change", scale=2.0, body=tmp_path / "body", given=given)
    kept, result = made(job)
    assert result.body is not None
    assert result.body.size_bytes == (tmp_path / "body").stat().st_size < LAYOUT.file_bytes * 0.6
    receiver = replace(
        job, portions=(Portion(tmp_path / "body", 1.0),), change=None, applies=False, body=None, out=tmp_path / "sent"
    )
    sent, _ = made(receiver)
    whole = (z + 2.0 * change).double() * (1 + given)
    lost = (sent - (z + 2.0 * change)).abs().max()
    assert 1e-5 < lost < 0.05
    assert (kept.double() + given * sent.double() - whole).abs().max() < 1e-5 * (1 + given)


def test_the_same_step_of_the_same_node_is_the_same_to_the_bit_and_anothers_is_not(tmp_path: Path) -> None:
    bodies = {}
    for name, step, place in (("a", 3, 1), ("again", 3, 1), ("step", 4, 1), ("place", 3, 2)):
        job = job_of(tmp_path, "qsgd", {"bits": 8}, values_of(1))
        mix(replace(job, body=tmp_path / name, given=1.0, step=step, place=place), HOST)
        bodies[name] = (tmp_path / name).read_bytes()
    assert bodies["a"] == bodies["again"]
    assert len(set(bodies.values())) == 3


def test_a_whole_model_is_taken_as_well(tmp_path: Path) -> None:
    write_model(tmp_path / "whole", LAYOUT, Model(values_of(5)))
    job = job_of(tmp_path, "int8", {}, values_of(1))
    mixed, result = made(replace(job, portions=(Portion(tmp_path / "whole", 1.0),)))
    assert result.refused == ()
    assert (mixed - values_of(5)).abs().max() < 1e-6


def hostile(honest: bytes) -> dict[str, bytes]:
    """What a hostile peer sends in place of a body, whatever the codec."""
    return {
        "empty": b"",
        "short": honest[:-1],
        "long": honest + b"\0",
        "one byte": b"\1",
        "all ones": b"\xff" * len(honest),
        "a model's size": b"\xff" * LAYOUT.file_bytes,
        "nearly a model's size": b"\0" * (LAYOUT.file_bytes - 1),
    }


@pytest.mark.parametrize(("codec", "options"), CODECS)
def test_a_hostile_body_is_passed_over_and_the_rest_counts(tmp_path: Path, codec: str, options: dict[str, Any]) -> None:
    job = job_of(tmp_path, codec, options, values_of(1))
    mix(replace(job, body=tmp_path / "honest", given=1.0), HOST)
    honest = Portion(tmp_path / "honest", 0.25)
    alone, _ = made(replace(job, portions=(honest,)))
    written = (tmp_path / "honest").read_bytes()
    for name, content in {**hostile(written), **bombs(codec, options, written, D)}.items():
        (tmp_path / "hostile").write_bytes(content)
        mixed, result = made(replace(job, portions=(Portion(tmp_path / "hostile", 0.5), honest)))
        assert result.refused == (0,), name
        assert torch.equal(mixed, alone), name


def test_a_scale_that_overflows_is_passed_over(tmp_path: Path) -> None:
    job = job_of(tmp_path, "int8", {}, values_of(1))
    mix(replace(job, body=tmp_path / "honest", given=1.0), HOST)
    huge = torch.full((1,), 3.4e38).numpy().tobytes()
    (tmp_path / "huge").write_bytes(huge + (tmp_path / "honest").read_bytes()[4:])
    mixed, result = made(replace(job, portions=(Portion(tmp_path / "huge", 1.0),)))
    assert torch.isfinite(mixed).all()
    assert result.refused in ((), (0,))


def test_without_a_codec_and_where_it_would_not_be_shorter_the_model_itself_is_sent(tmp_path: Path) -> None:
    job = job_of(tmp_path, "none", {}, values_of(1))
    _, result = made(replace(job, body=tmp_path / "body", given=1.0))
    assert result.body is None
    job = job_of(tmp_path, "qsgd", {"levels": 32767, "bucket": 8}, values_of(1))
    _, result = made(replace(job, body=tmp_path / "body", given=1.0))
    assert result.body is not None  # 16 bits, and a scale for 8 elements: 2.5 bytes each
    wide = layout_of(nn.Linear(D, 1, bias=False).to(torch.bfloat16))
    write_model(tmp_path / "wide", wide, nn.Linear(D, 1, bias=False).to(torch.bfloat16))
    job = replace(job, layout=wide.to_json(), base=tmp_path / "wide", body=tmp_path / "body", given=1.0)
    assert mix(job, HOST).body is None


def test_what_cannot_be_encoded_is_an_error_that_says_so(tmp_path: Path) -> None:
    job = job_of(tmp_path, "int8", {}, torch.full((D,), 3e38))
    (tmp_path / "change").write_bytes(torch.full((D,), 3e38).numpy().tobytes())
    with pytest.raises(TaskError):
        mix(replace(job, applies=True, change=tmp_path / "change", body=tmp_path / "body", given=1.0), HOST)
    with pytest.raises(SpecError, match="block"):
        mix(replace(job, spec_json=spec_of("int8", {"block": 7}), body=tmp_path / "body", given=1.0), HOST)
