"""Estimates of models in the worker: bodies that go on from each other, their file, and bodies that do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from covey.artifact import artifact_of_file
from covey.codecs.contract import CODECS
from covey.errors import LayoutError
from covey.learning.models.state import layout_of, write_model
from covey.worker.execute.mix_op import mix
from covey.worker.files.estimates import OWN, STAMP_BYTES, Estimates, read_rows
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion
from tests.unit.worker.bombs import bombs

HOST: Any = None  # mixing asks nothing of it
D = 900
CASES: list[tuple[str, dict[str, Any]]] = [
    ("scaled-sign", {}),
    ("top-k", {"fraction": 0.1}),
    ("top-k", {"fraction": 0.1, "indices": "elias-fano"}),
    ("top-k", {"fraction": 0.1, "indices": "elias-fano", "value_bits": 2}),
    ("random-k", {"fraction": 0.1}),
    ("qsgd", {}),
    ("int8", {}),
    ("int4", {}),
    ("fp8", {}),
    ("fp16", {}),
    ("bf16", {}),
]
"""Every codec that bodies of differences may have, in each of its forms."""


class Model(nn.Module):
    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(values)


LAYOUT = layout_of(Model(torch.zeros(D)))


def values_of(seed: int) -> torch.Tensor:
    return torch.randn(D, generator=torch.Generator().manual_seed(seed))


class Node:
    """One node's files, and its jobs one after the other."""

    def __init__(self, folder: Path, seed: int, codec: str, options: dict[str, Any], peers: tuple[str, ...]) -> None:
        folder.mkdir()
        self.folder, self.codec, self.number, self.peers = folder, CODECS.make(codec, options), 0, peers
        gossip = {"protocol": {"name": "choco", "options": {"gamma": 0.5}}, "topology": {"name": "ring"}}
        exchange = {"codec": codec, "options": options}
        fields = {"name": "run", "mode": "gossip", "task": {"name": "digits"}, "exchange": exchange, "gossip": gossip}
        self.spec, self.model, self.kept = json.dumps(fields), folder / "first", folder / "none"
        write_model(self.model, LAYOUT, Model(values_of(seed)))

    def do(self, **job: Any) -> MixResult:
        self.number += 1
        out, out_kept = self.folder / f"{self.number}", self.folder / f"{self.number}-kept"
        kept = self.kept if self.kept.exists() else None
        plain = MixJob(LAYOUT.to_json(), self.model, out, spec_json=self.spec, kept=kept, out_kept=out_kept)
        result = mix(replace(plain, synced=False, peers=self.peers, step=self.number, **job), HOST)
        self.model = out
        if result.kept is not None:
            assert result.kept == artifact_of_file(out_kept)
            self.kept = out_kept
        return result

    def say(self, seed: int, *, is_whole: bool = False) -> Path:
        """Train, and say so; the body."""
        change, body = self.folder / "change", self.folder / f"{self.number}-body"
        (values_of(seed) * 0.1).numpy().tofile(change)
        result = self.do(applies=True, change=change, body=body, given=1e-9, is_whole=is_whole)
        if result.body is None:
            return self.model
        assert result.body == artifact_of_file(body)
        most = self.codec.encoded_bytes(D, LAYOUT.part("model")) + STAMP_BYTES
        assert result.body.size_bytes == most if self.codec.fixed_size else result.body.size_bytes <= most
        return body

    def hear(self, *portions: tuple[str, Path, float]) -> tuple[int, ...]:
        """Mix; what was refused."""
        return self.do(portions=tuple(Portion(body, share, source) for source, body, share in portions)).refused

    @property
    def values(self) -> torch.Tensor:
        return MappedModel(self.model, LAYOUT).dense().clone()

    @property
    def known(self) -> Estimates:
        return read_rows(self.kept, 0, LAYOUT, self.codec)[1]

    def estimate(self, name: str) -> torch.Tensor:
        return self.known.known[name].model.dense()


def pair(tmp_path: Path, codec: str = "top-k", options: dict[str, Any] | None = None) -> tuple[Node, Node]:
    given = {"fraction": 0.1} if options is None else options
    return (Node(tmp_path / "a", 1, codec, given, ("b", "c")), Node(tmp_path / "b", 2, codec, given, ("a", "c")))


@pytest.mark.parametrize(("codec", "options"), CASES)
def test_both_ends_of_an_edge_know_the_same_and_the_step_is_that_of_the_paper(
    tmp_path: Path, codec: str, options: dict[str, Any]
) -> None:
    a, b = pair(tmp_path, codec, options)
    for step in range(4):
        said = a.say(10 + step), b.say(20 + step)
        before, own = b.values, b.estimate(OWN)
        assert b.hear(("a", said[0], 0.25)) == ()
        assert a.hear(("b", said[1], 0.25)) == ()
        for one, other, name in ((a, b, "a"), (b, a, "b")):
            assert torch.equal(one.estimate(OWN), other.estimate(name))
            assert one.known.known[OWN].stamp == other.known.known[name].stamp
        wanted = before.double() + 0.5 * 0.25 * (b.estimate("a").double() - own.double())
        assert (b.values - wanted).abs().max() < 1e-6
    assert not torch.equal(a.estimate(OWN), a.values)


def test_one_that_is_late_moves_the_estimate_and_counts_for_nothing(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    b.say(2)
    bodies = [a.say(3), a.say(4), a.say(5)]
    before = b.values
    assert b.hear(("a", bodies[0], 0.0), ("a", bodies[1], 0.0)) == ()
    assert torch.equal(b.values, before)
    assert b.hear(("a", bodies[2], 0.5)) == ()
    assert torch.equal(b.estimate("a"), a.estimate(OWN))
    assert not torch.equal(b.values, before)


def hostile(honest: bytes, old: bytes, model: bytes) -> dict[str, bytes]:
    """What a hostile peer sends in place of a body."""
    return {
        "of another estimate": honest[:-STAMP_BYTES] + bytes(STAMP_BYTES),
        "an older one again": old,
        "empty": b"",
        "a stamp alone": honest[-STAMP_BYTES:],
        "short": honest[1:],
        "long": b"\0" + honest,
        "all ones": b"\xff" * (len(honest) - STAMP_BYTES) + honest[-STAMP_BYTES:],
        "nearly a model's size": b"\0" * (LAYOUT.file_bytes - 1),
        "a model's size": b"\xff" * LAYOUT.file_bytes,
        "a model that is not finite": model[:-4] + b"\x00\x00\xc0\x7f",
        "more than a model": model + bytes(64),
    }


@pytest.mark.parametrize(("codec", "options"), CASES)
def test_a_hostile_body_costs_only_itself(tmp_path: Path, codec: str, options: dict[str, Any]) -> None:
    a, b = pair(tmp_path, codec, options)
    b.say(2)
    whole = a.say(3)
    model = whole.read_bytes()
    assert b.hear(("a", whole, 0.5), ("c", whole, 0.25)) == ()
    old = a.say(4)
    assert b.hear(("a", old, 0.5)) == ()
    honest = a.say(5)
    before, known = b.values, b.estimate("a")
    sent = honest.read_bytes()
    written, stamp = sent[:-STAMP_BYTES], sent[-STAMP_BYTES:]
    coded = {name: bomb + stamp for name, bomb in bombs(codec, options, written, D).items()}
    for name, content in {**hostile(sent, old.read_bytes(), model), **coded}.items():
        (tmp_path / "hostile").write_bytes(content)
        assert b.hear(("a", tmp_path / "hostile", 0.5)) == (0,), name
        assert torch.equal(b.values, before), name
        assert torch.equal(b.estimate("a"), known), name
    assert b.hear(("stranger", honest, 0.5)) == (0,)
    assert b.hear(("a", honest, 0.5)) == ()  # as if nothing had been
    assert torch.equal(b.estimate("a"), a.estimate(OWN))


def test_who_said_nonsense_is_heard_again_from_its_next_whole_model_on(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    b.say(2)
    assert b.hear(("a", a.say(3), 0.5)) == ()
    a.say(4)
    assert b.hear(("a", a.say(5), 0.5)) == (0,)
    assert b.hear(("a", a.say(6, is_whole=True), 0.5)) == ()
    assert b.hear(("a", a.say(7), 0.5)) == ()
    assert torch.equal(b.estimate("a"), a.estimate(OWN))


def test_of_who_is_gone_nothing_is_kept(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    b.say(2)
    assert b.hear(("a", a.say(3), 0.5), ("c", a.say(4, is_whole=True), 0.25)) == ()
    assert set(b.known.known) == {OWN, "a", "c"}
    b.peers = ("c",)
    b.say(3)
    assert set(b.known.known) == {OWN, "c"}
    assert b.kept.stat().st_size < 2 * 4 * D + 500


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    a, _ = pair(tmp_path)
    a.say(3)
    content = a.kept.read_bytes()
    for broken in (b"", content[:-1], content[4:], content[:-8] + b"\xff" * 8):
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(LayoutError, match="broken"):
            read_rows(tmp_path / "broken", 0, LAYOUT, a.codec)
    with pytest.raises(LayoutError, match="not 2"):
        read_rows(a.kept, 1, LAYOUT, a.codec)
