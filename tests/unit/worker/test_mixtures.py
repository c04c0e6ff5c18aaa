"""Mixing models of peers: the weighted mean, and what a peer sends that is no model."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from covey.artifact import artifact_of_file
from covey.errors import TaskError
from covey.learning.models.state import layout_of, model_sha256, write_model
from covey.testing.protocols import gossip_run
from covey.vectors import BLOCK_ELEMENTS
from covey.worker.execute.mix_op import mix
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs.mixtures import MixJob, Portion

HOST: Any = None  # mixing asks nothing of it


class Small(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((6,), value))


LAYOUT = layout_of(Small(0.0))


def written(path: Path, value: float) -> Path:
    write_model(path, LAYOUT, Small(value))
    return path


def mixed(tmp_path: Path, *portions: tuple[Path, float], base: float = 0.0) -> tuple[torch.Tensor, tuple[int, ...]]:
    job = MixJob(
        LAYOUT.to_json(),
        written(tmp_path / "base", base),
        tmp_path / "out",
        tuple(Portion(path, share) for path, share in portions),
    )
    result = mix(job, HOST)
    return MappedModel(job.out, LAYOUT).read(slice(0, 6)), result.refused


@pytest.mark.parametrize("synced", [True, False])
def test_only_a_mixture_that_must_survive_a_power_cut_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: bool
) -> None:
    base, sync = written(tmp_path / "base", 2.0), os.fsync
    syncs: list[int] = []

    def noted(fd: int) -> None:
        syncs.append(fd)
        sync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    mix(MixJob(LAYOUT.to_json(), base, tmp_path / "out", synced=synced), HOST)
    assert len(syncs) == synced
    assert (tmp_path / "out").read_bytes() == base.read_bytes()


def test_a_mixture_is_the_mean_by_shares(tmp_path: Path) -> None:
    four, two = written(tmp_path / "four", 4.0), written(tmp_path / "two", 2.0)
    values, refused = mixed(tmp_path, (four, 0.25), (two, 0.25))
    assert values.tolist() == [1.5] * 6
    assert refused == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_passed_over_and_the_rest_counts(tmp_path: Path, value: float) -> None:
    wrong, two = written(tmp_path / "wrong", value), written(tmp_path / "two", 2.0)
    values, refused = mixed(tmp_path, (wrong, 0.25), (two, 0.25))
    assert values.tolist() == [0.5] * 6
    assert refused == (0,)


@pytest.mark.parametrize("described", [True, False])
def test_a_value_at_the_end_of_a_long_model_that_is_no_number_spoils_nothing(tmp_path: Path, described: bool) -> None:
    model = nn.Linear(2 * BLOCK_ELEMENTS, 1, bias=False)
    layout, paths = layout_of(model), [tmp_path / name for name in ("base", "two", "wrong")]
    for path, value in zip(paths, (0.0, 2.0, 6.0), strict=True):
        nn.init.constant_(model.weight, value)
        if path.name == "wrong":
            model.weight.data[0, -1] = float("inf")
        write_model(path, layout, model)
    portions = tuple(Portion(path, 0.25) for path in paths[1:])
    job = MixJob(layout.to_json(), paths[0], tmp_path / "out", portions, synced=False, described=described)
    result = mix(job, HOST)
    assert result.refused == (1,)
    assert set(MappedModel(job.out, layout).read(slice(0, model.weight.numel())).tolist()) == {0.5}
    assert result.artifact == artifact_of_file(job.out)
    named = (model_sha256(job.out, layout), 0.5 * math.sqrt(model.weight.numel()))
    assert (result.model_sha256, result.moved) == (named if described else ("", 0.0))


@pytest.mark.parametrize(
    ("gossip", "applies", "is_written"),
    [
        ({"protocol": "sgp"}, False, False),
        ({"protocol": "sgp", "global_every": 2}, True, False),
        ({"protocol": "sgp", "momentum": "quasi-global"}, False, False),
        ({"protocol": "gradient-tracking"}, True, True),  # what travels with the model changes
    ],
)
def test_a_model_that_nothing_changes_is_not_written_anew(
    tmp_path: Path, gossip: dict[str, object], applies: bool, is_written: bool
) -> None:
    base, spec = written(tmp_path / "base", 2.0), gossip_run(**gossip)
    job = MixJob(
        LAYOUT.to_json(), base, tmp_path / "out", spec_json=spec.to_json(), applies=applies, may_stay=True, weight=1.0
    )
    result = mix(job, HOST)
    assert (result.artifact is not None, job.out.exists()) == (is_written, is_written)
    assert mix(replace(job, may_stay=False), HOST).artifact is not None
    two = Portion(written(tmp_path / "two", 4.0), 0.5)
    if not applies:
        assert mix(replace(job, portions=(two,)), HOST).artifact is not None


def test_what_is_no_model_is_passed_over(tmp_path: Path) -> None:
    other = tmp_path / "other"
    size = written(tmp_path / "two", 2.0).stat().st_size
    other.write_bytes(b"\xff" * size)
    values, refused = mixed(tmp_path, (tmp_path / "two", 0.5), (other, 0.25))
    assert values.tolist() == [1.0] * 6
    assert refused == (1,)


def test_a_model_of_ones_own_that_diverged_is_an_error(tmp_path: Path) -> None:
    two = written(tmp_path / "two", 2.0)
    with pytest.raises(TaskError, match="training diverged"):
        mixed(tmp_path, (two, 0.5), base=float("nan"))


ROBUST = {
    "trimmed-mean": {"topology": {"name": "complete"}},
    "nearest-neighbour-averaging": {"topology": {"name": "complete"}},
    "clipped-gossip": {"topology": {"name": "complete"}, "mixing": {"name": "metropolis-hastings"}},
}


@pytest.mark.parametrize("protocol", sorted(ROBUST))
def test_a_robust_protocol_looks_at_finite_models_only_and_bounds_the_largest(tmp_path: Path, protocol: str) -> None:
    values = {"nan": float("nan"), "inf": float("-inf"), "huge": 3e38, "one": 1.0, "two": 2.0, "three": 3.0}
    files = [written(tmp_path / name, value) for name, value in values.items()]
    job = MixJob(
        LAYOUT.to_json(),
        written(tmp_path / "base", 1.5),
        tmp_path / "out",
        tuple(Portion(path, 1 / 7) for path in files),
        spec_json=gossip_run(protocol=protocol, **ROBUST[protocol]).to_json(),
    )
    assert mix(job, HOST).refused == (0, 1)
    mixture = MappedModel(job.out, LAYOUT).read(slice(0, 6))
    assert ((mixture >= 1.0) & (mixture <= 3.0)).all()
