"""`covey.sweep`: the record of the command, as an object."""

from __future__ import annotations

from pathlib import Path

import pytest

import covey
from covey.client.sweeps.results import SweepResults, read_results
from covey.errors import Conflict, NotFound, SpecError
from covey.library.sweep import FinishedSweep
from tests.unit.client.sweeps.test_simulated_sweep import MachinesHere

KEY = "training.learning_rate"
SWEEP = {
    "specification": {
        "name": "lr",
        "mode": "gossip",
        "task": {"name": "digits"},
        "training": {"batch_size": 256, "local_epochs": 1},
        "gossip": {"steps": 1},
    },
    "sweep": {"method": "grid", "space": {KEY: {"choice": [0.05, 0.5]}}},
}


def test_a_sweep_is_run_shown_and_taken_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr("covey.library.sweep.Machines", MachinesHere)
    monkeypatch.chdir(tmp_path)
    done = covey.sweep(SWEEP, nodes=2)
    assert (done.folder, done.results) == (Path("lr.sweep"), read_results(tmp_path / "lr.sweep"))
    best, other = done.trials()
    assert done.best() == best
    assert best.value is not None
    assert other.value is not None
    assert best.value > other.value
    html = done._repr_html_()
    assert f"<th>params.{KEY}</th>" in html
    assert "2 of 2 trials, by accuracy" in html
    events = []
    assert covey.sweep(SWEEP, nodes=2, on_event=events.append).results == done.results
    assert events == []
    with pytest.raises(Conflict, match="begun with nodes 2"):
        covey.sweep(SWEEP, nodes=3)
    pytest.importorskip("pandas", reason="data frames are for those who have it")
    frame = done.to_frame()
    assert list(frame[f"params.{KEY}"]) == [best.params[KEY], other.params[KEY]]
    assert not {"curve", "decisions"} & set(frame.columns)
    pytest.importorskip("matplotlib", reason="pictures are for those who have it")
    assert [axes.get_xlabel() for axes in done.plot("lr.svg").axes] == ["steps", KEY]
    assert (tmp_path / "lr.svg").read_bytes().startswith(b"<?xml")
    assert len(done.plot().axes) == 2


def test_what_does_not_go_together_is_said(tmp_path):
    with pytest.raises(ValueError, match="give nodes= to simulate the sweep, or client="):
        covey.sweep(SWEEP)
    with covey.connect(tmp_path) as federation:
        with pytest.raises(ValueError, match="of simulated runs"):
            covey.sweep(SWEEP, client=federation, device="cuda")
        with pytest.raises(SpecError, match='mode "gossip" the coordinator sees no model'):
            covey.sweep(SWEEP, client=federation, folder=tmp_path / "lr.sweep")
    with pytest.raises(SpecError, match="the sweep: not valid TOML"):
        covey.sweep("= 3", nodes=2)
    empty = SweepResults("lr", "accuracy", True, 2, (0,), "rounds", 0, (KEY,), (), ())
    with pytest.raises(NotFound, match="no trial of lr has a value"):
        FinishedSweep(empty, tmp_path).best()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"engine": "ray"}, "--engine ray: it trains for runs with a coordinator"),
        ({"engine": "magic"}, "--engine magic: choose one of processes, ray"),
        ({"ray_address": "auto"}, "only --engine ray goes there"),
        ({"events": "x", "staleness": object()}, "nobody decides on updates.*no coordinator whose events"),
    ],
)
def test_an_engine_that_cannot_be_is_refused_by_simulate(options, text):
    with pytest.raises(SpecError, match=text):
        covey.simulate(SWEEP["specification"], 2, **options)
