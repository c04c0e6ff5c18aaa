"""Ray as the engine of a simulation: what is refused without it, and the same model with it."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
from click.testing import CliRunner

from covey import __version__
from covey.cli.main import covey
from covey.errors import WorkerError
from covey.simulation.ray_engine import SIGN, WorkerActor
from covey.testing.launch.forks import run_covey
from tests.integration.specs import spec

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.fixture
def simulate(tmp_path: Any) -> Any:
    """Calls `covey simulate` in this process; the result."""
    (tmp_path / "digits.toml").write_text(spec(rounds=2))

    def call(*options: str) -> Any:
        return CliRunner().invoke(covey, ["simulate", str(tmp_path / "digits.toml"), "--nodes", "2", *options])

    return call


def test_what_cannot_be_is_refused(simulate: Any, tmp_path: Any) -> None:
    assert "only --engine ray goes there" in simulate("--ray-address", "head:6379").stderr
    assert 'on a Ray cluster nodes train on "cpu" only' in simulate("--engine", "ray", "--device", "cuda").stderr
    (tmp_path / "digits.toml").write_text(spec().replace("seed = 7", 'mode = "gossip"\nseed = 7').split("[rounds]")[0])
    assert "--engine ray" in simulate("--engine", "ray").stderr


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_it_is_said_how_to_get_it(simulate: Any) -> None:
    assert "pip install 'covey[ray]'" in simulate("--engine", "ray").stderr


def test_an_actor_looks_whether_it_can_work_there(tmp_path: Any) -> None:
    with pytest.raises(WorkerError, match="is not the same folder on"):
        WorkerActor(str(tmp_path), "ray-0", "abc", __version__)
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / SIGN).write_text("abc")
    WorkerActor(str(tmp_path), "ray-0", "abc", __version__)
    with pytest.raises(WorkerError, match="where the simulation runs"):
        WorkerActor(str(tmp_path), "ray-0", "abc", "0.0.1")


@pytest.mark.skipif(not HAS_RAY, reason="needs Ray (covey[ray]), 79 MB: not in dev")
@pytest.mark.timeout(300)
def test_it_comes_to_the_same_model(tmp_path: Any) -> None:
    (tmp_path / "digits.toml").write_text(spec(rounds=2))
    models = set()
    for options in ((), ("--engine", "ray", "--processes", "1")):
        done = run_covey(["simulate", tmp_path / "digits.toml", "--nodes", "2", "--json", *options], timeout_s=240)
        assert done.returncode == 0, done.stderr
        models.add(json.loads(done.stdout)["run"]["model_sha256"])
    assert len(models) == 1
