"""What peers send each other in codistillation: what is taken and kept of it, and that nodes learn from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from covey.errors import LayoutError
from covey.layout import Layout, TensorSpec
from covey.learning.models.flat import load_flat
from covey.learning.tasks.digits import Digits
from covey.methods.contract import Part
from covey.parts import COLLECT
from covey.spec import GossipSpec, parse_data
from covey.worker.execute.coordinator_ops import initial
from covey.worker.execute.mix_op import mix
from covey.worker.execute.node_ops import train
from covey.worker.execute.updates.from_peers import MOST_EARLY, FromPeers
from covey.worker.files.collected import newest, read_collected, write_collected
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs.mixtures import MixJob, Portion
from covey.worker.jobs.runs import InitialJob
from covey.worker.jobs.training import FilterOrder, TrainJob
from covey.worker.program.host import Host

HOST = Host(torch.device("cpu"))


def part(name: str, dtype: str, *shape: int, up: int | None = 1) -> Part:
    layout = Layout.of([TensorSpec(name, dtype, shape)])
    return Part(
        name=name, layout=layout, up=up, down=1, audience="others", combine=COLLECT, keep=frozenset({"version"})
    )


PREDICTIONS = FromPeers(Layout(()), (part("logits", "float32", 1, 3, 1), part("samples", "int64", 3)), ahead=1)
"""Of three examples and one class: 12 + 24 bytes, so that the ids are not where int64 has to be."""


def body(path: Path, logits: list[float], ids: list[int]) -> Path:
    path.write_bytes(torch.tensor(logits, dtype=torch.float32).numpy().tobytes() + torch.tensor(ids).numpy().tobytes())
    return path


def job(folder: Path, portions: tuple[Portion, ...], step: int, kept: Path | None = None, **fields: Any) -> MixJob:
    peers = ("a", "b")
    out = folder / f"kept-{step}-{len(portions)}"
    return MixJob("", Path(), Path(), portions, kept=kept, out_kept=out, step=step, peers=peers, **fields)


def test_a_file_of_bodies_says_who_sent_which_and_anything_else_is_refused(tmp_path: Path) -> None:
    bodies = {("a", 3): torch.arange(6, dtype=torch.uint8), ("b#2", 0): torch.zeros(6, dtype=torch.uint8)}
    path = tmp_path / "kept"
    artifact = write_collected(path, bodies, synced=False)
    assert artifact.size_bytes == path.stat().st_size
    read = read_collected(path, 6)
    assert {sent: values.tolist() for sent, values in read.items()} == {s: v.tolist() for s, v in bodies.items()}
    assert read_collected(None, 6) == {}
    write_collected(tmp_path / "none", {}, synced=False)
    assert read_collected(tmp_path / "none", 6) == {}
    with pytest.raises(LayoutError, match="has no bodies of 7 bytes"):
        read_collected(path, 7)
    with pytest.raises(LayoutError, match="has 4 bodies, and names 2"):
        read_collected(path, 3)
    assert newest([("a", 1), ("b", 0), ("a", 4), ("a", 2)]) == {("a", 4), ("b", 0)}


def test_each_prediction_comes_to_the_step_that_it_is_for_and_no_other(tmp_path: Path) -> None:
    """Made after step s, ahead by one, they are for step s + 2, which is round s + 3."""
    portions = tuple(Portion(body(tmp_path / f"a{s}", [s, 1, 2], [7, 8, 9]), 0.1, "a", s) for s in (0, 1, 2, 3, 40))
    portions += (Portion(body(tmp_path / "b", [5, 5, 5], [1, 2, 3]), 0.1, "b", 2),)
    portions += (Portion(body(tmp_path / "c", [5, 5, 5], [1, 2, 3]), 0.1, "gone", 2),)
    artifact, refused = PREDICTIONS.gather(gathered := job(tmp_path, portions, step=2))
    assert artifact is not None
    assert refused == ()
    kept = gathered.out_kept
    assert {sent[:2] for sent in read_collected(kept, PREDICTIONS.size)} == {("a", 1), ("a", 2), ("a", 3), ("b", 2)}
    others = PREDICTIONS.others(kept, round=4)  # of step 1
    assert {name: list(values) for name, values in others.items()} == {"logits": ["a"], "samples": ["a"]}
    assert others["samples"]["a"].tolist() == [7, 8, 9]
    assert others["logits"]["a"].tolist() == [1, 1, 2]
    assert sorted(PREDICTIONS.others(kept, round=5)["logits"]) == ["a", "b"]
    assert PREDICTIONS.others(kept, round=9) == {"logits": {}, "samples": {}}
    # A step later what was for this one is gone, and what came stays; who claims to be far ahead gains nothing.
    claims = (Portion(body(tmp_path / "far", [0, 0, 0], [1, 1, 1]), 0.1, "b", 3 + MOST_EARLY),)
    PREDICTIONS.gather(later := job(tmp_path, claims, step=3, kept=kept))
    assert set(read_collected(later.out_kept, PREDICTIONS.size)) == {("a", 2), ("a", 3), ("b", 2)}
    assert PREDICTIONS.gather(job(tmp_path, (), step=3, kept=kept)) == (None, ())


@pytest.mark.parametrize("hostile", ["short", "long", "infinite", "not a number", "empty"])
def test_a_hostile_body_costs_its_sender_only(tmp_path: Path, hostile: str) -> None:
    good = Portion(body(tmp_path / "good", [1, 2, 3], [7, 8, 9]), 0.1, "a", 2)
    bad = body(tmp_path / "bad", [1, {"infinite": -torch.inf, "not a number": torch.nan}.get(hostile, 0), 3], [1, 1, 1])
    if hostile in ("short", "long", "empty"):
        data = bad.read_bytes()
        bad.write_bytes({"short": data[:-4], "long": data + bytes(4), "empty": b""}[hostile])
    _, refused = PREDICTIONS.gather(gathered := job(tmp_path, (Portion(bad, 0.1, "b", 2), good), step=2))
    assert refused == (0,)
    assert set(read_collected(gathered.out_kept, PREDICTIONS.size)) == {("a", 2)}


class Steps:
    """Nodes of a gossip run in lock step, by the worker's own operations, each sending to each.

    Args:
        folder: For their files.
        options: Of the protocol.
        nodes: Options of the task that are a node's own.
    """

    def __init__(self, folder: Path, options: dict[str, Any], nodes: Mapping[str, Any] | None = None) -> None:
        folder.mkdir()
        spec = parse_data(
            {
                "name": "run",
                "mode": "gossip",
                "seed": 5,
                "task": {"name": "digits", "options": {"common": 1000}, "nodes": dict(nodes or {})},
                "training": {"learning_rate": 0.1, "batch_size": 32, "local_steps": 15},
                "data": {"partition": "dirichlet", "alpha": 1.0},
                "gossip": {"steps": 6, "protocol": {"name": "codistill", "options": {"waits": True, **options}}},
            }
        )
        assert isinstance(spec, GossipSpec)
        self.spec, self._text, self._folder, self.names = spec, spec.to_json(), folder, ("n0", "n1")
        self.models, self.kept = {name: folder / f"first-{name}" for name in self.names}, dict[str, Path]()
        self.layouts = {
            name: initial(InitialJob("run", self._text, path, task_options=self._own(name)), HOST).layout
            for name, path in self.models.items()
        }
        self.bodies: dict[str, Path] = {}
        self.filters: tuple[FilterOrder, ...] = ()

    def _own(self, name: str) -> Mapping[str, Any]:
        return self.spec.task.nodes.get(name, {})

    def step(self, number: int) -> None:
        """Train, send, take."""
        parts = ("logits", "samples") if self.spec.gossip.protocol.options.get("classes") else ()
        for place, name in enumerate(self.names):
            at = self._folder / f"{number}-{name}"
            result = train(
                TrainJob(
                    "run",
                    self._text,
                    self.layouts[name],
                    number + 1,
                    place,
                    2,
                    self.models[name],
                    {key: Path(f"{at}-{key}") for key in ("model", "buffers", *parts)},
                    collected=self.kept.get(name),
                    task_options=self._own(name),
                    filters=self.filters,
                ),
                HOST,
            )
            files = {file.name: file.path for file in result.parts}
            out, sent = Path(f"{at}-trained"), Path(f"{at}-body")
            self._mix(
                name,
                number,
                out,
                applies=True,
                change=files["model"],
                body=sent,
                parts=tuple(files[key] for key in parts),
            )
            self.models[name], self.bodies[name] = out, sent if parts else out
        for name in self.names:
            others = [other for other in self.names if other != name]
            portions = tuple(Portion(self.bodies[other], 0.5, other, number) for other in others)
            mixed = self._folder / f"{number}-{name}-mixed"
            kept = self._folder / f"{number}-{name}-kept"
            self._mix(name, number, mixed, portions=portions, kept=self.kept.get(name), out_kept=kept)
            assert mixed.read_bytes() == self.models[name].read_bytes()
            self.kept[name] = kept

    def _mix(self, name: str, number: int, out: Path, **fields: Any) -> None:
        peers = tuple(other for other in self.names if other != name)
        fixed: dict[str, Any] = {"spec_json": self._text, "step": number, "peers": peers, "synced": False}
        result = mix(MixJob(self.layouts[name], self.models[name], out, **fixed, **fields), HOST)
        assert result.refused == ()

    def predictions(self, name: str) -> Tensor:
        """What a node's model says of the central data: int64 `[360]`."""
        task = Digits(self._own(name))
        model, layout = task.model(), Layout.from_json(self.layouts[name])
        load_flat(model, layout.part("model"), MappedModel(self.models[name], layout).dense())
        predicted: Tensor = model(task.central_data().tensors[0]).argmax(1)
        return predicted


@pytest.mark.parametrize("exchange", ["predictions", "checkpoints"])
def test_peers_come_to_agree_and_keep_models_of_their_own(tmp_path: Path, exchange: str) -> None:
    agreement = {}
    for weight in (0.0, 1.0):
        classes = {"classes": 10} if exchange == "predictions" else {"exchange": exchange}
        run = Steps(tmp_path / str(weight), {"weight": weight, **classes})
        for number in range(6):
            run.step(number)
        agreement[weight] = (run.predictions("n0") == run.predictions("n1")).float().mean().item()
    assert agreement[1.0] > agreement[0.0] + 0.1
    layout = Layout.from_json(run.layouts["n0"])
    first, second = (MappedModel(run.models[name], layout).dense() for name in run.names)
    assert (first - second).norm() > 0.3 * first.norm()


@pytest.mark.parametrize("exchange", ["predictions", "checkpoints"])
def test_a_site_s_filter_sees_what_leaves_and_a_model_only_where_it_leaves(tmp_path: Path, exchange: str) -> None:
    run = Steps(tmp_path / "run", {"classes": 10} if exchange == "predictions" else {"exchange": exchange})
    run.filters = (FilterOrder("tests.unit.worker.worker_tasks:Zeroes"),)
    layout = Layout.from_json(run.layouts["n0"])
    first = MappedModel(run.models["n0"], layout).dense().clone()
    run.step(0)
    is_unchanged = torch.equal(MappedModel(run.models["n0"], layout).dense(), first)
    assert is_unchanged == (exchange == "checkpoints")
    if exchange == "predictions":
        assert not any(run.bodies["n0"].read_bytes())


def test_peers_may_have_different_models(tmp_path: Path) -> None:
    run = Steps(tmp_path / "run", {"classes": 10}, {"n1": {"hidden": 100}})
    for number in range(6):
        run.step(number)
    assert run.layouts["n0"] != run.layouts["n1"]
    agreement = (run.predictions("n0") == run.predictions("n1")).float().mean()
    assert agreement > 0.25  # nodes that learn alone, with the same model: 0.1
