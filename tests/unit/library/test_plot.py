"""Pictures of runs: what is in them, hostile names, and what is refused."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from covey.client.values import Contribution, Round, Run
from covey.errors import NotFound, SpecError
from covey.library.plot import MOST_NODES, Curves, draw

EVIL = '$\\frac{1}$<script>&"'


def curves(name: str = "digits", nodes: int = 2, **metrics: float) -> Curves:
    rounds = [
        Round(number, "committed", committed_at=100.0 + number, bytes_received=10, bytes_sent=5, metrics=metrics)
        for number in (1, 2, 3)
    ]
    run = Run("3f9a", name, "rounds", "completed", started_at=100.0)
    return Curves(run, rounds, [Contribution(f"n{k}", asked=3, accepted=k, rejected=1) for k in range(nodes)], name)


def test_a_curve_is_over_rounds_seconds_or_bytes() -> None:
    item = curves(accuracy=0.5)
    assert item.points("accuracy", "rounds") == ([1, 2, 3], [0.5] * 3)
    assert item.points("accuracy", "seconds")[0] == [1.0, 2.0, 3.0]
    assert item.points("bytes", "bytes") == ([15, 30, 45], [15, 30, 45])
    assert item.points("loss", "rounds") == ([], [])


def test_a_round_that_is_open_has_no_place_among_seconds() -> None:
    item = curves(accuracy=0.5)
    item.rounds = [*item.rounds, Round(4, "collecting", started_at=104.0, bytes_received=3)]
    assert item.points("bytes", "seconds") == ([1.0, 2.0, 3.0], [15, 30, 45])
    assert item.points("bytes", "rounds") == ([1, 2, 3, 4], [15, 30, 45, 48])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture_is_written(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib", reason="pictures are for those who have it")
    to = tmp_path / f"runs{suffix}"
    many = curves(EVIL, nodes=MOST_NODES + 5, accuracy=0.5, loss=1.0, other=2.0)
    assert draw([curves(accuracy=0.4), many], to) == ["accuracy", "loss", "bytes", "verdicts"]
    begins = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert to.read_bytes().startswith(begins)
    assert b"<script" not in to.read_bytes()
    assert draw([many], to, ["other"], "seconds") == ["other", "bytes", "verdicts"]


def test_a_run_that_has_nothing_yet_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures are for those who have it")
    empty = Curves(Run("3f9a", "digits", "rounds", "queued"), [], [], "digits")
    assert draw([empty], tmp_path / "empty.png") == ["bytes", "verdicts"]


def test_what_cannot_be_drawn_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"runs\.jpg: a picture is a \.png, \.svg, \.pdf file"):
        draw([curves()], tmp_path / "runs.jpg")
    with pytest.raises(NotFound, match="no run has a metric 'acuracy'; there are: accuracy"):
        draw([curves(accuracy=1.0)], tmp_path / "runs.png", ["acuracy"])

    def without(name: str) -> ModuleType:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(NotFound, match=r"pip install 'covey\[plot\]'"):
        draw([curves(accuracy=1.0)], tmp_path / "runs.png")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures are for those who have it")
    with pytest.raises(NotFound, match="cannot be written: No such file or directory"):
        draw([curves(accuracy=1.0)], tmp_path / "none" / "runs.png")
