"""What `import covey` gives, on a real federation: submitted, waited for, read, stopped; simulated; awaited."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import covey
from covey.errors import RunFailed, SpecError
from covey.library.federation import SimulatedRun
from covey.library.records import Records
from covey.library.run import FederatedRun
from covey.simulation.arrival_order import parse_staleness
from covey.testing.launch.forks import forked_workers
from covey.testing.launch.processes import wait_until
from covey.trackers.contract import TrackedRun
from covey.trackers.folders import named
from tests.integration.test_client import DIGITS
from tests.unit.trackers import test_trackers as known

pytestmark = pytest.mark.processes
pytest.importorskip("sklearn", reason="the digits are scikit-learn's")


@pytest.fixture(scope="module")
def federation() -> Iterator[covey.Federation]:
    with covey.local(2) as federation:
        yield federation


@pytest.fixture(scope="module")
def digits(federation: covey.Federation) -> FederatedRun:
    return federation.submit(DIGITS).wait()


def test_a_run_is_submitted_waited_for_and_read(federation, digits):
    assert (digits.state, digits.name, digits.spec["seed"]) == ("completed", "digits", 7)
    assert [item.round for item in digits.rounds()] == [1, 2, 3]
    assert [item.round for item in digits.rounds(limit=1, newest=True)] == [3]
    updates = digits.updates()
    assert [(row["round"], row["node"], row["verdict"]) for row in updates][:2] == [
        (1, "node-1", "accepted"),
        (1, "node-2", "accepted"),
    ]
    assert len(updates) == 6
    curve = digits.metrics()
    assert [row["round"] for row in curve] == [1, 2, 3]
    assert curve[-1]["accuracy"] == digits.value.metrics["accuracy"]
    assert {item.node: item.accepted for item in digits.contributions()} == {"node-1": 3, "node-2": 3}
    assert digits.log()[-1].what
    assert digits.audit().ok
    assert federation.run("digits").id == federation.runs()[-1].id == digits.id
    assert [node.node for node in federation.nodes()] == ["node-1", "node-2"]
    assert federation.status().nodes_connected == 2


def test_its_nodes_learn_among_themselves(federation):
    spec = {"name": "among", "mode": "gossip", "task": {"name": "digits"}, "training": {"local_steps": 1}}
    run = federation.submit(spec | {"gossip": {"steps": 2, "min_nodes": 2}}).wait()
    assert (run.state, run.reason, run.value.done) == ("completed", "", 2)
    assert run.audit().ok


def test_the_model_loads_strictly_into_the_task_s_own(digits):
    from covey.learning.tasks.digits import Digits

    state = digits.model("best")
    Digits().model().load_state_dict(state, strict=True)
    assert digits.model(1).keys() == state.keys()


def test_it_shows_itself(federation, digits):
    assert repr(digits) == f"<run digits ({digits.id}): completed, 3 of 3 rounds>"
    page = digits._repr_html_()
    assert '<progress value="3" max="3">' in page
    assert "accuracy" in page
    assert "<th>metrics.accuracy</th>" in digits.rounds()._repr_html_()
    assert "<td>digits</td>" in federation.runs()._repr_html_()


def test_what_is_wrong_is_said(federation):
    with pytest.raises(SpecError, match=r"rounds\.cuont"):
        federation.submit(DIGITS | {"rounds": {"cuont": 3}})
    run = federation.submit(DIGITS | {"name": "far", "rounds": {"count": 500, "min_nodes": 2}})
    next(run.watch())
    assert run.stop().state == "stopped"
    assert run.refresh().wait().state == "stopped"
    assert run.delete().run == run.id


def test_a_run_that_fails_raises(federation):
    wrong = DIGITS | {"name": "wrong", "training": {"learning_rate": 1e30, "batch_size": 32}}
    run = federation.submit(wrong | {"rounds": {"count": 2, "min_nodes": 2, "short": "fail"}})
    with pytest.raises(RunFailed, match=r"run wrong .* failed: "):
        run.wait()


def test_lines_of_progress_go_to_standard_error(federation, capsys):
    federation.submit(DIGITS | {"name": "told"}).wait(progress=True)
    out, told = capsys.readouterr()
    assert out == ""
    assert "told: completed, 3 of 3 rounds; accuracy 0." in told


async def test_the_same_awaited(federation, digits):
    async with covey.connect(federation.client.target.data_dir) as other:
        run = await other.submit(DIGITS | {"name": "awaited"})
        seen = [change.run.done async for change in run.watch()]
        assert (seen[-1], run.value.state) == (3, "completed")
        rounds, curve = await asyncio.gather(run.rounds(), (await other.run("digits")).metrics())
        assert (len(rounds), len(curve)) == (3, 3)
        assert (await run.model()).keys() == digits.model().keys()
        assert {node.node for node in await other.nodes()} == {"node-1", "node-2"}
        assert (await other.status()).nodes_connected == 2
        assert [each.value.name for each in await other.runs(1)] == ["awaited"]
        assert (await (await run.refresh()).wait()).value.state == "completed"


async def test_a_watch_that_is_given_up_ends_as_cancelled(federation):
    async with covey.connect(federation.client.target.data_dir) as other:
        run = await other.submit(DIGITS | {"name": "given-up", "rounds": {"count": 2, "min_nodes": 3}})

        async def follow() -> None:
            async for _ in run.watch():
                pass

        task = asyncio.create_task(follow())
        _, pending = await asyncio.wait([task], timeout=2)  # it waits for a third node, and says nothing any more
        assert pending
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await run.stop()).value.state == "stopped"


async def test_a_simulation_works_where_a_loop_runs_as_in_a_notebook(digits, tmp_path):
    with forked_workers():
        run = covey.simulate(DIGITS, 2, data_dir=tmp_path / "data", processes=1)
        assert isinstance(run, SimulatedRun)
        more = run.continue_(1)
        with pytest.raises(
            SpecError, match=r"evaluation.only: task 'digits' .* it does with .* evaluate_on_nodes = true"
        ):
            more.evaluate()
    try:
        assert (more.value.parent, more.state) == (f"{run.id}@3", "completed")
        assert run.stop().wait() is run
        assert (run.state, run.value.model_sha256) == ("completed", digits.value.model_sha256)
        assert run.model().keys() == digits.model().keys()
        assert isinstance(run.rounds(), Records)
        assert run.seconds > 0
    finally:
        run.close()


def test_an_asynchronous_simulation_with_staleness_is_evaluated(tmp_path):
    task = {"name": "digits", "options": {"evaluate_on_nodes": True}}
    late = {**DIGITS, "mode": "async", "async": {"updates": 2}, "task": task, "aggregation": {"name": "staleness-mean"}}
    del late["rounds"]
    with forked_workers():
        run = covey.simulate(late, 2, data_dir=tmp_path, processes=1, staleness=parse_staleness("normal:1,0.5"))
        assert isinstance(run, SimulatedRun)
        with contextlib.closing(run):
            assert {node.verdict for node in run.evaluate().nodes} == {"accepted"}


def test_runs_are_drawn_and_listed_as_csv(federation, digits, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures are for those who have it")
    where = ["--data-dir", str(federation.client.target.data_dir)]

    def covey_run(*arguments):
        command = [sys.executable, "-P", "-m", "covey.cli.main", *arguments, *where]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout

    told = covey_run("run", "plot", "digits", digits.id, "--to", str(tmp_path / "digits.svg"))
    assert told.startswith("accuracy, loss, bytes, verdicts of digits")
    assert f"digits ({digits.id})" in (tmp_path / "digits.svg").read_text()
    rounds = covey_run("round", "list", "digits", "--csv").splitlines()
    assert rounds[0].startswith("round,state,")
    assert "metrics.accuracy" in rounds[0]
    assert len(rounds) == 4
    assert covey_run("round", "show", "digits", "1", "--csv").startswith("node,verdict,")
    assert covey_run("node", "list", "--csv").splitlines()[1].startswith("node-1,connected,")


def test_a_run_is_tracked_live_as_it_is_later(federation, tmp_path):
    """By each tracker that is installed, one of them killed meanwhile: the same points, none of them twice."""
    data_dir = str(federation.client.target.data_dir)
    run = federation.submit(DIGITS | {"name": "tracked", "rounds": {"count": 6, "min_nodes": 2}})
    about = TrackedRun(run.id, run.name)
    command = [sys.executable, "-P", "-m", "covey.cli.main", "run", "track", run.id, "--follow", "--data-dir", data_dir]
    curves = tmp_path / "live" / f"{named(about)}.csv"
    killed = subprocess.Popen([*command, "--to", f"csv:{curves.parent}"], stdout=subprocess.DEVNULL)
    assert wait_until(lambda: curves.exists() and curves.stat().st_size > 100, timeout_s=100)
    killed.kill()
    killed.wait()

    def follow(name):
        with covey.connect(data_dir) as other:
            return other.run(run.id).track(f"{name}:{tmp_path / 'live'}", follow=True, model=True)

    readers = {"csv": known.TestCsv(), "tensorboard": known.TestTensorBoard(), "parquet": known.TestParquet()}
    libraries = {"tensorboard": "tensorboard", "parquet": "pyarrow"}
    installed = [name for name in readers if importlib.util.find_spec(libraries.get(name, "csv"))]
    with ThreadPoolExecutor() as threads:
        told = dict(zip(installed, threads.map(follow, installed), strict=True))
    whole = readers["csv"].told(str(curves.parent), about)
    assert whole["round/accepted"] == [(number, 2.0) for number in range(1, 7)]
    assert whole["accuracy"][-1] == (6, run.refresh().value.metrics["accuracy"])
    assert {"bytes", "node/node-1/loss", "node/node-2/loss"} <= whole.keys()
    for name in installed:
        where = f"{name}:{tmp_path / 'later'}"
        assert run.track(where) >= told[name]
        assert readers[name].told(str(tmp_path / "later"), about) == readers[name].told(str(tmp_path / "live"), about)
        assert run.track(where) == (0 if name != "parquet" else told[name])
    assert {file.read_bytes() for file in tmp_path.rglob("*.safetensors")} == {exported(run, tmp_path)}


def exported(run, folder):
    run.export(folder / "exported.safetensors")
    return (folder / "exported.safetensors").read_bytes()


def test_importing_covey_imports_nothing_of_it():
    code = (
        "import covey, sys; print(sorted(n for n in sys.modules if n.startswith('covey.')), covey.connect.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("] ")[0] == "["
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        covey.conect  # type: ignore[attr-defined]  # noqa: B018
