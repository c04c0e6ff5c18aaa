from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from torch import Tensor, nn

from covey.aggregation.momentum_stability import stable_momentum
from covey.artifact import artifact_of_file
from covey.codecs.contract import CodecContext
from covey.errors import LayoutError, RunFailed, SpecError, WorkerError
from covey.learning.models.state import layout_of, model_sha256, write_model
from covey.spec import parse_data, parse_json
from covey.testing.launch.forks import forked_workers
from covey.vectors import TensorVector
from covey.worker.client.client import Worker
from covey.worker.execute.from_spec import load_codec
from covey.worker.files.mapped import MappedModel, map_float32
from covey.worker.jobs.operations import STEP
from covey.worker.jobs.steps import LOST, StepAnswer, StepJob, StepResult

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

NODES = ("ada", "bob", "cy", "dee")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    with forked_workers():
        found = await Worker.start(tmp_path_factory.mktemp("worker"))
    yield found
    await found.stop()


def spec_of(policy: str, options: dict[str, Any], /, **sections: Any) -> str:
    fields: dict[str, Any] = {
        "name": "test",
        "mode": "async",
        "task": {"name": "digits"},
        "aggregation": {"name": policy, "options": options},
        **sections,
    }
    if fields.get("exchange", {}).get("payload") == "gradient":
        fields["training"] = {"local_steps": 1}
    return parse_data(fields).to_json()


def small_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))


class AsyncRun:
    """What the coordinator keeps of a run: files of versions and updates, and what the last decision said."""

    def __init__(self, worker: Worker, folder: Path, spec: str, slots: tuple[str, ...] = ()) -> None:
        self.worker, self.folder, self.spec, self.slots = worker, folder, spec, slots
        self.layout = layout_of(small_model())
        self.version, self.number, self.state_json = 0, 0, ""
        self.models = {0: folder / "version-0"}
        self.updates: dict[int, StepAnswer] = {}
        self.held: list[int] = []
        self.pinned = StepResult(())
        self.state: dict[str, Path] = {}
        write_model(self.models[0], self.layout, small_model())
        self.d = self.layout.part("model").numel
        self.codec = load_codec(parse_json(spec).exchange)

    def model(self, version: int) -> MappedModel:
        return MappedModel(self.models[version], self.layout)

    def parameters(self, version: int) -> Tensor:
        return self.model(version).read(slice(0, self.d)).clone()

    def arrival(self, node: str, vector: Tensor, base: int, mean: float = 2.0, weight: float = 1.0) -> StepAnswer:
        self.number += 1
        model, buffers = (self.folder / f"{part}-{self.number}" for part in ("model", "buffers"))
        context = CodecContext(seed=self.number, round=self.number, layout=self.layout.part("model"))
        model.write_bytes(b"".join(map(bytes, self.codec.encode(TensorVector(vector), context))))
        values = {"1.running_mean": torch.full((4,), mean), "1.running_var": torch.full((4,), 3.0)}
        tensors = [
            values.get(t.name, torch.tensor(7)).to(getattr(torch, t.dtype)) for t in self.layout.part("buffers").tensors
        ]
        buffers.write_bytes(b"".join(tensor.numpy().tobytes() for tensor in tensors))
        found = StepAnswer(node, weight, {"model": model, "buffers": buffers}, number=self.number, base_version=base)
        self.updates[self.number] = found
        return found

    def job(self, arrival: StepAnswer, **fields: Any) -> StepJob:
        versions = {*self.pinned.pinned_versions, arrival.base_version, self.version} & set(self.models)
        job: dict[str, Any] = {
            "run": "run",
            "spec_json": self.spec,
            "layout": self.layout.canonical_bytes().decode(),
            "answers": (arrival,),
            "version": self.version,
            "held": tuple(self.updates[number] for number in self.held),
            "updates": {number: self.updates[number].parts for number in self.pinned.pinned_updates},
            "models": {version: self.models[version] for version in versions},
            "state_json": self.state_json,
            "state": self.state,
            "out": self.folder / f"version-{self.version + 1}",
            "out_state": {slot: self.folder / f"{slot.replace('/', '-')}-{self.version + 1}" for slot in self.slots},
            "roster": NODES,
        }
        return StepJob(**{**job, **fields})

    def take(self, result: StepResult) -> None:
        """What the coordinator does after a decision."""
        self.state_json, self.pinned = result.state_json, result
        for verdict in result.verdicts:
            self.held = [number for number in self.held if number != verdict.number]
            self.held += [verdict.number] if verdict.verdict == "held" else []
        if result.artifact is not None:
            self.version += 1
            self.models[self.version] = self.folder / f"version-{self.version}"
            self.state = {one.name: one.path for one in result.state}
            assert artifact_of_file(self.models[self.version]) == result.artifact
            assert model_sha256(self.models[self.version], self.layout) == result.model_sha256

    async def deliver(self, node: str, vector: Tensor, base: int, **fields: Any) -> StepResult:
        result = await self.worker.do(STEP, self.job(self.arrival(node, vector, base, **fields)))
        self.take(result)
        return result


def vectors(run: AsyncRun, count: int) -> Tensor:
    return torch.randn(count, run.d, generator=torch.Generator().manual_seed(3))


async def test_staleness_mean_of_deltas(worker: Worker, tmp_path: Path) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("staleness-mean", {"alpha": 0.5}))
    first, second = vectors(run, 2)
    await run.deliver("ada", first, 0)
    result = await run.deliver("bob", second, 0, mean=6.0)
    (verdict,) = result.verdicts
    share = 0.5 * 2**-0.5
    assert (verdict.number, verdict.node, verdict.verdict) == (2, "bob", "accepted")
    assert verdict.share == pytest.approx(share)
    assert verdict.numbers == {"staleness": 1.0, "dampening": pytest.approx(2**-0.5)}
    wanted = run.parameters(0) + 0.5 * first + share * second
    torch.testing.assert_close(run.parameters(2), wanted)
    mean = (1 - share) * 1.0 + share * 6.0  # 0.5 x 0 + 0.5 x 2 after the first
    torch.testing.assert_close(run.model(2).buffers["1.running_mean"], torch.full((4,), mean))
    assert result.pinned_updates == result.pinned_versions == ()


async def test_staleness_mean_of_parameters_mixes_with_the_newest_version(worker: Worker, tmp_path: Path) -> None:
    spec = spec_of("staleness-mean", {"alpha": 0.25, "dampening": "hinge"}, exchange={"payload": "parameters"})
    run = AsyncRun(worker, tmp_path, spec)
    first, second = vectors(run, 2)
    await run.deliver("ada", first, 0)
    await run.deliver("bob", second, 0)
    wanted = 0.75 * (0.75 * run.parameters(0) + 0.25 * first) + 0.25 * second
    torch.testing.assert_close(run.parameters(2), wanted)


async def test_updates_and_earlier_ones_are_read_through_the_codec(worker: Worker, tmp_path: Path) -> None:
    exchange = {"payload": "gradient", "codec": "bf16"}
    run = AsyncRun(worker, tmp_path, spec_of("kardam", {"f": 0}, exchange=exchange))
    first, second, third = vectors(run, 3)
    await run.deliver("ada", first, 0)
    await run.deliver("bob", second, 1)
    (verdict,) = (await run.deliver("ada", third, 2)).verdicts
    change = third.bfloat16().float() - first.bfloat16().float()
    moved = run.parameters(2) - run.parameters(0)
    assert verdict.numbers["coefficient"] == pytest.approx(float(change.norm() / moved.norm()), rel=1e-5)
    torch.testing.assert_close(run.parameters(1), run.parameters(0) - first.bfloat16().float())


async def test_held_updates_are_read_by_the_tensors_that_their_codec_scales_apart(
    worker: Worker, tmp_path: Path
) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("buffered", {"k": 2}, exchange={"codec": "terngrad"}))
    first, second = vectors(run, 2)
    assert (await run.deliver("ada", first, 0)).artifact is None
    assert (await run.deliver("bob", second, 0)).artifact is not None
    part = run.layout.part("model")
    readers = [run.codec.reader(one.parts["model"].read_bytes(), run.d, part) for one in run.updates.values()]
    mean = sum(reader.read(slice(0, run.d)).clone() for reader in readers) / 2
    torch.testing.assert_close(run.parameters(1), run.parameters(0) + mean)


async def test_a_full_buffer_without_staleness_is_a_round_of_mean_to_the_bit(worker: Worker, tmp_path: Path) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("buffered", {"k": 4}))
    weights = {"dee": 10.0, "ada": 20.0, "cy": 5.0, "bob": 30.0}
    results = [
        await run.deliver(node, vector, 0, weight=weights[node], mean=weights[node])
        for node, vector in zip(weights, vectors(run, 4), strict=True)
    ]
    assert [[v.verdict for v in result.verdicts] for result in results] == [["held"]] * 3 + [["accepted"] * 4]
    assert [result.pinned_updates for result in results] == [(1,), (1, 2), (1, 2, 3), ()]
    by_node = {one.node: one for one in run.updates.values()}
    rows = tuple(StepAnswer(node, weights[node], by_node[node].parts) for node in NODES)
    rounds = {"name": "test", "task": {"name": "digits"}}
    job = StepJob(
        run="round",
        spec_json=parse_data(rounds).to_json(),
        layout=run.job(by_node["ada"]).layout,
        version=0,
        models={0: run.models[0]},
        answers=rows,
        state={},
        out=tmp_path / "round",
        out_state={},
    )
    made = await worker.do(STEP, job)
    assert made.model_sha256 == results[-1].model_sha256
    shares = {verdict.node: verdict.share for verdict in results[-1].verdicts}
    assert shares == {verdict.node: verdict.share for verdict in made.verdicts}


async def test_kardam_steps_against_the_gradient_and_can_be_repeated(worker: Worker, tmp_path: Path) -> None:
    spec = spec_of(
        "kardam",
        {"f": 1},
        exchange={"payload": "gradient"},
        server_optimizer={"name": "sgd", "options": {"learning_rate": 0.1}},
    )
    run = AsyncRun(worker, tmp_path, spec)
    verdicts, bases = [], dict.fromkeys(NODES, 0)
    for i in range(24):
        node = NODES[i % 4]
        gradient = run.parameters(bases[node]) * (-10.0 if node == "dee" else 1.0)
        before, version = run.parameters(run.version), run.version
        arrival = run.arrival(node, gradient, bases[node])
        job = run.job(arrival)
        result = await worker.do(STEP, job)
        again = await worker.do(STEP, run.job(arrival, out=tmp_path / "again"))
        assert (again.verdicts, again.state_json, again.artifact) == (
            result.verdicts,
            result.state_json,
            result.artifact,
        )
        run.take(result)
        (verdict,) = result.verdicts
        verdicts.append(verdict)
        if verdict.verdict == "accepted":
            dampening = 1 / (1 + version - bases[node])
            assert verdict.share == verdict.numbers["dampening"] == dampening
            torch.testing.assert_close(run.parameters(run.version), before - 0.1 * dampening * gradient)
        bases[node] = run.version
        assert set(result.pinned_versions) <= set(range(run.version + 1))
        assert len(result.pinned_updates) == min(i + 1, 4)
    attacks = [v.verdict for v in verdicts if v.node == "dee"]
    assert attacks == ["rejected"] * 6
    assert sum(v.verdict == "accepted" for v in verdicts) >= 9


async def test_what_cannot_be_used_is_rejected_before_the_policy(worker: Worker, tmp_path: Path) -> None:
    spec = spec_of("buffered", {"k": 3}, **{"async": {"max_staleness": 1}})
    run = AsyncRun(worker, tmp_path, spec)
    good, bad = vectors(run, 2)
    bad[3] = float("nan")
    await run.deliver("ada", good, 0)
    result = await run.deliver("bob", bad, 0)
    assert [(v.number, v.verdict, v.reason) for v in result.verdicts] == [(2, "rejected", "non-finite")]
    assert result.pinned_updates == (1,)
    result = await run.deliver("bob", good[:-1], 0)
    assert result.verdicts[0].verdict == "rejected"
    assert "too few" in result.verdicts[0].reason
    run.version = 2
    run.models |= {1: run.models[0], 2: run.models[0]}
    result = await run.deliver("bob", good, 0)
    assert result.verdicts[0].reason == "2 versions old, and async.max_staleness is 1"
    assert (await run.deliver("bob", good, 1)).verdicts[0].verdict == "held"


async def test_a_newer_update_of_a_node_takes_the_place_of_its_held_one(worker: Worker, tmp_path: Path) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("buffered", {"k": 2, "dampening": "none"}))
    first, second, third = vectors(run, 3)
    await run.deliver("ada", first, 0)
    result = await run.deliver("ada", second, 0)
    assert [(v.number, v.verdict) for v in result.verdicts] == [(2, "held"), (1, "rejected")]
    assert "replaced by update 2" in result.verdicts[1].reason
    result = await run.deliver("bob", third, 0)
    assert [(v.number, v.verdict, v.share) for v in result.verdicts] == [(3, "accepted", 0.5), (2, "accepted", 0.5)]
    torch.testing.assert_close(run.parameters(1), run.parameters(0) + (second + third) / 2)


async def test_held_updates_of_evicted_nodes_are_rejected_first(worker: Worker, tmp_path: Path) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("buffered", {"k": 3, "dampening": "none", "rule": {"name": "median"}}))
    ada, bob, cy, dee = vectors(run, 4)
    await run.deliver("ada", ada, 0)
    await run.deliver("bob", -1e6 * bob, 0, mean=1e6)
    result = await worker.do(STEP, run.job(run.arrival("cy", cy, 0), evicted=("bob", "dee")))
    run.take(result)
    assert [(v.number, v.verdict, v.reason) for v in result.verdicts] == [(3, "held", ""), (2, "rejected", "evicted")]
    assert (result.pinned_updates, result.artifact) == ((1, 3), None)
    result = await run.deliver("dee", dee, 0)
    assert {v.number for v in result.verdicts} == {1, 3, 4}
    torch.testing.assert_close(run.parameters(1), run.parameters(0) + torch.stack([ada, cy, dee]).median(0).values)
    torch.testing.assert_close(run.model(1).buffers["1.running_mean"], torch.full((4,), 2.0))


async def test_held_updates_that_are_lost_are_rejected_and_the_others_count(worker: Worker, tmp_path: Path) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("buffered", {"k": 3, "dampening": "none"}))
    ada, bob, cy, dee = vectors(run, 4)
    await run.deliver("ada", ada, 0)
    await run.deliver("bob", bob, 0)
    gone = run.updates[2] = replace(run.updates[2], parts={})
    job = run.job(run.arrival("cy", cy, 0), lost=(gone.number,), updates={1: run.updates[1].parts})
    run.take(result := await worker.do(STEP, job))
    assert [(v.number, v.verdict, v.reason) for v in result.verdicts] == [(3, "held", ""), (2, "rejected", LOST)]
    result = await run.deliver("dee", dee, 0)
    assert {v.number for v in result.verdicts} == {1, 3, 4}
    torch.testing.assert_close(run.parameters(1), run.parameters(0) + (ada + cy + dee) / 3)


@pytest.mark.parametrize("variant", ["self", "server", "official", "official-25"])
async def test_kardam_goes_on_without_an_update_that_is_lost(worker: Worker, tmp_path: Path, variant: str) -> None:
    spec = spec_of("kardam", {"f": 0, "variant": variant}, exchange={"payload": "gradient"})
    run = AsyncRun(worker, tmp_path, spec)
    first, second, third = vectors(run, 3)
    await run.deliver("ada", first, 0)
    await run.deliver("bob", second, 1)
    lost = run.pinned.pinned_updates
    assert lost == (1, 2)
    result = await worker.do(STEP, run.job(run.arrival("ada", third, 2), lost=lost, updates={}))
    assert result.verdicts[0].verdict == "accepted"
    assert result.pinned_updates == (3,)  # it is compared with nothing, and the next ones with it


async def test_an_eviction_counts_even_if_the_policy_does_not_see_the_arrival(worker: Worker, tmp_path: Path) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("basgd", {"buffers": 2}))
    good, bad = vectors(run, 2)
    bad[3] = float("nan")
    await run.deliver("ada", good, 0)
    result = await worker.do(STEP, run.job(run.arrival("bob", bad, 0), evicted=("ada",)))
    assert [(v.number, v.reason) for v in result.verdicts] == [(2, "non-finite"), (1, "evicted")]
    assert result.pinned_updates == ()
    assert json.loads(result.state_json)["policy"]["held"] == {}


async def test_momentum_goes_on_and_minds_staleness(worker: Worker, tmp_path: Path) -> None:
    optimizer = {"name": "momentum", "options": {"staleness_aware": True, "step_curvature": 0.3}}
    run = AsyncRun(
        worker,
        tmp_path,
        spec_of("staleness-mean", {"alpha": 1.0, "dampening": "none"}, server_optimizer=optimizer),
        slots=("optimizer/momentum",),
    )
    velocity, model = torch.zeros(run.d), run.parameters(0)
    for i, vector in enumerate(vectors(run, 5)):
        result = await run.deliver(NODES[i % 4], vector, max(0, run.version - 2))
        staleness = [0, 1, 2, 2, 2][i]
        velocity = min(0.9, stable_momentum(staleness, 0.3)) * velocity + vector
        model = model + velocity
        torch.testing.assert_close(map_float32(run.state["optimizer/momentum"], run.d), velocity)
        torch.testing.assert_close(run.parameters(run.version), model)
    assert json.loads(result.state_json)["staleness"] == [0, 1, 2, 2, 2]


async def test_basgd_takes_the_median_of_buffers_also_of_statistics(worker: Worker, tmp_path: Path) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("basgd", {"buffers": 3}))
    a, b, c, d = vectors(run, 4)
    await run.deliver("ada", a, 0, mean=1.0)
    await run.deliver("dee", d, 0, mean=1.5)
    await run.deliver("bob", b, 0, mean=2.0)
    result = await run.deliver("cy", 1e6 * c, 0, mean=1e6)
    means = torch.stack([(a + d) / 2, b, 1e6 * c])
    torch.testing.assert_close(run.parameters(1), run.parameters(0) + means.median(0).values)
    torch.testing.assert_close(run.model(1).buffers["1.running_mean"], torch.full((4,), 1.75))
    assert {v.node: v.numbers["buffer"] for v in result.verdicts} == {"ada": 0, "bob": 1, "cy": 2, "dee": 0}
    assert {v.node: v.share for v in result.verdicts} == {
        "ada": pytest.approx(1 / 6),
        "bob": pytest.approx(1 / 3),
        "cy": pytest.approx(1 / 3),
        "dee": pytest.approx(1 / 6),
    }


async def test_a_job_that_does_not_fit_is_refused(worker: Worker, tmp_path: Path) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("buffered", {"k": 2}))
    first, second = vectors(run, 2)
    await run.deliver("ada", first, 0)
    arrival = run.arrival("bob", second, 0)
    with pytest.raises(WorkerError, match=r"update 1 is held .* was not named"):
        await worker.do(STEP, run.job(arrival, held=()))
    with pytest.raises(WorkerError, match="no file was named for version 0"):
        await worker.do(STEP, run.job(arrival, models={}))
    with pytest.raises(RunFailed, match="'bob' is not in the run's roster"):
        await worker.do(STEP, run.job(arrival, roster=("ada",)))
    with pytest.raises(WorkerError, match="version 1, which is yet to come"):
        await worker.do(STEP, run.job(replace(arrival, base_version=1), models=run.models))
    with pytest.raises(RunFailed, match="not a state of Buffered"):
        await worker.do(STEP, run.job(arrival, state_json='{"policy":{"held":3},"staleness":[]}'))
    spec = spec_of("staleness-mean", {}, server_optimizer={"name": "momentum"})
    with pytest.raises(LayoutError, match="no file was named for the state"):
        await worker.do(STEP, run.job(arrival, spec_json=spec, state_json=""))


async def test_too_few_nodes_for_kardam(worker: Worker, tmp_path: Path) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("kardam", {"f": 1}, exchange={"payload": "gradient"}))
    with pytest.raises(RunFailed, match="kardam with f = 1 needs more than 3 nodes, the roster has 3"):
        await worker.do(STEP, run.job(run.arrival("ada", vectors(run, 1)[0], 0), roster=NODES[:3]))


async def test_wrong_options_are_named(worker: Worker, tmp_path: Path) -> None:
    run = AsyncRun(worker, tmp_path, spec_of("kardam", {"variant": "other"}))
    with pytest.raises(SpecError, match=r"aggregation.options.variant: .*'self', 'server', 'official'"):
        await worker.do(STEP, run.job(run.arrival("ada", vectors(run, 1)[0], 0)))
