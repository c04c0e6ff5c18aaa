"""Updates that do not count, and the memory that aggregation takes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from covey.worker.client.client import Worker
from covey.worker.jobs.steps import StepAnswer
from tests.integration.worker.runs import NODES, Run, spec_of

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


async def test_bad_updates_cost_themselves_only(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of())
    await run.initial()
    rows = [run.row(i, await run.train(i)) for i in range(NODES)]
    good = await run.aggregate(rows[:1])
    spoil(rows[1].parts["model"], np.float32(np.nan), 5)
    spoil(rows[2].parts["buffers"], np.float32(np.inf), -1)
    short = tmp_path / "short"
    short.write_bytes(b"\0" * 8)
    rows.append(StepAnswer("node-3", 10, {**rows[0].parts, "model": short}))
    rows.append(StepAnswer("node-4", 10, {"model": rows[0].parts["model"]}))
    rows.append(StepAnswer("node-5", -1.0, rows[0].parts))
    result = await run.aggregate(rows)
    assert result.model_sha256 == good.model_sha256
    assert [(v.node, v.accepted, v.share) for v in result.verdicts] == [
        (f"node-{i}", i == 0, float(i == 0)) for i in range(6)
    ]
    assert [v.reason for v in result.verdicts[:3]] == ["", "non-finite", "non-finite"]
    assert all(v.reason for v in result.verdicts[3:])


def spoil(path: Path, value: np.float32, index: int) -> None:
    values = np.fromfile(path, dtype="<f4")
    values[index] = value
    values.tofile(path)


async def test_too_few_updates_make_no_version(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of())
    await run.initial()
    row = run.row(0, await run.train(0))
    spoil(row.parts["model"], np.float32(np.nan), 0)
    result = await run.aggregate([row])
    assert not result.enough
    assert (result.artifact, result.state) == (None, ())
    assert [v.accepted for v in result.verdicts] == [False]
    assert not (tmp_path / "version-1").exists()


async def test_shares_are_bounded_and_sum_to_one(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of(weights={"max_share": 0.4}))
    await run.initial()
    rows = [run.row(i, await run.train(i)) for i in range(NODES)]
    rows[0] = StepAnswer(rows[0].node, 1e12, rows[0].parts)
    shares = [v.share for v in (await run.aggregate(rows)).verdicts]
    assert shares == pytest.approx([0.4, 0.3, 0.3])


async def test_aggregation_holds_blocks_and_not_models(worker: Worker, disk_path: Path) -> None:
    d, n = 10_000_000, 8
    spec = spec_of(
        "synthetic", task={"name": "synthetic", "options": {"parameters": d}}, server_optimizer={"name": "adam"}
    )
    run = Run(worker, disk_path, spec)
    await run.initial()
    rng = np.random.default_rng(0)
    for i in range(n):
        (rng.standard_normal(d, dtype=np.float32) * 1e-3).tofile(disk_path / f"row-{i}")
    rows = [StepAnswer(f"node-{i}", 1.0, {"model": disk_path / f"row-{i}"}) for i in range(n)]
    slots = ("optimizer/first_moment", "optimizer/second_moment")
    await run.aggregate(rows[:1], 1, slots)
    with AnonymousMemory(worker.pid) as memory:
        result = await run.aggregate(rows, 2, slots)
    assert result.enough
    assert len(memory.samples) > 10
    assert max(memory.samples) - memory.samples[0] < 24 << 20


class AnonymousMemory:
    """Samples a process' anonymous memory, in bytes, as fast as it can."""

    def __init__(self, pid: int) -> None:
        self.samples = [_anonymous_bytes(pid)]
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _sample(self) -> None:
        while not self._over.wait(0.001):
            self.samples.append(_anonymous_bytes(self._pid))

    def __enter__(self) -> AnonymousMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _anonymous_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) << 10
