"""A confined worker: the task's code cannot read what is hidden, sees no secrets, and has so much memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from covey.errors import TaskError
from covey.worker.client.client import Worker
from covey.worker.client.confinement import Confinement
from covey.worker.jobs.operations import HELLO
from covey.worker.jobs.runs import HelloJob
from tests.integration.worker.runs import Run, spec_of

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


async def test_what_a_task_finds_out(tasks_path: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVEY_STORE", "postgresql://covey:secret@db/covey")
    secret = tmp_path / "identity" / "tls.key"
    secret.parent.mkdir()
    await asyncio.to_thread(secret.write_text, "secret")
    confinement = Confinement(hidden=(secret.parent,), memory_bytes=3 << 30)
    worker = await Worker.start(tmp_path, log_file=tmp_path / "log", confinement=confinement)
    try:
        hello = await worker.do(HELLO, HelloJob())
        run = Run(worker, tmp_path, spec_of("Prying"))
        await run.initial()
        with pytest.raises(TaskError, match="found out: ") as caught:
            await run.train(0, node_paths={"secret": str(secret)})
    finally:
        await worker.stop()
    if "NOT confined" in hello.confinement:
        pytest.skip(hello.confinement)
    assert "identity/" in hello.confinement
    assert "read: False, store: False, memory: False" in str(caught.value)
