"""What every tracker must keep, as tests that the author of one inherits.

    class TestMine(TrackerConformance):
        def make(self) -> Tracker:
            return Mine()

        def told(self, where: str, run: TrackedRun) -> Curves:
            ...  # read back what is there

Each test makes a tracker anew, and tells it a run.
"""

from __future__ import annotations

import gc
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from covey.errors import CoveyError
from covey.trackers.contract import TrackedRun, Tracker

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""Steps and values of each curve, in order."""
AT = 1_800_000_000.0
HOSTILE = '../../=cmd|"<script>alert(1)</script>\\n$\\frac{1}$'
ODD = ("nodes/=1+1 <b>", "node/n1/a//b", "node/../x/./.y", "node/n1/f1/")
"""Nodes name metrics as they like."""
NAMES = ("accuracy", "round/bytes_sent", "node/n1/loss", *ODD)
LONG = '{"steps": "' + "node-1, " * 5000 + '"}'


def run_named(name: str, run: str = "3f9a01c2d4e5") -> TrackedRun:
    """A run, submitted in 2027."""
    return TrackedRun(run, name, submitted_at=AT, spec={"seed": 7, "task.name": name, "model.freeze": ["a", "b"]})


def tell(tracker: Tracker, steps: range) -> None:
    """A point of each curve at each step."""
    for step in steps:
        for place, name in enumerate(NAMES):
            tracker.point(name, step, step + place / 4, AT + step)


def abandon(tracker: Tracker) -> None:
    """What a killed process leaves: what it wrote is there, nothing is closed in good order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for name in list(vars(tracker)):
            delattr(tracker, name)
        gc.collect()


class TrackerConformance(ABC):
    """Of a tracker."""

    @abstractmethod
    def make(self) -> Tracker:
        """A new one."""

    @abstractmethod
    def told(self, where: str, run: TrackedRun) -> Curves:
        """What is there of a run, by the names as the tracker writes them."""

    def where(self, folder: Path) -> str:
        """The target; `folder` is a new one for the test."""
        return str(folder / "curves")

    def expected(self, steps: range) -> Curves:
        """What `tell` tells, by the names as the tracker writes them; values are exact in float32."""
        return {name: [(step, step + place / 4) for step in steps] for place, name in enumerate(NAMES)}

    def test_points_are_there_in_order(self, tmp_path: Path) -> None:
        """Of a run with a hostile name, and nothing is written outside the target."""
        where, run = self.where(tmp_path), run_named(HOSTILE)
        tracker = self.make()
        assert tracker.open(where, run) == ""
        tell(tracker, range(3))
        tracker.save("three")
        tell(tracker, range(3, 5))
        tracker.save("five")
        tracker.close("completed")
        assert self.told(where, run) == self.expected(range(5))
        assert len(list(tmp_path.iterdir())) <= 1

    @pytest.mark.parametrize("saved", [False, True])
    def test_after_a_kill_no_point_is_doubled_and_none_is_missing(self, tmp_path: Path, saved: bool) -> None:
        """What was told behind the cursor is told again."""
        where, run = self.where(tmp_path), run_named("digits")
        tracker = self.make()
        tracker.open(where, run)
        if saved:
            tell(tracker, range(2))
            tracker.save("two")
        tell(tracker, range(2 if saved else 0, 4))
        abandon(tracker)
        for _ in range(2):  # and once more, with nothing new
            tracker = self.make()
            cursor = tracker.open(where, run)
            assert cursor in ("", "two", "four")
            tell(tracker, range({"": 0, "two": 2, "four": 4}[cursor], 4))
            tracker.save("four")
            tracker.close("completed")
            assert self.told(where, run) == self.expected(range(4))

    def test_a_long_cursor_comes_back_whole(self, tmp_path: Path) -> None:
        """That of a run of many nodes is tens of thousands of characters; and a short one after it."""
        where, run, before = self.where(tmp_path), run_named("digits"), ""
        for step, cursor in enumerate((LONG, LONG[::-1], "short")):
            tracker = self.make()
            known = tracker.open(where, run)
            assert known in ("", before)
            tell(tracker, range(step if known else 0, step + 1))
            tracker.save(cursor)
            tracker.close("")
            before = cursor
        assert self.told(where, run) == self.expected(range(3))

    def test_runs_in_one_place_do_not_mix(self, tmp_path: Path) -> None:
        """Not even those of one name."""
        where, runs = self.where(tmp_path), [run_named("digits", "aa11"), run_named("digits", "bb22")]
        for count, run in enumerate(runs, 1):
            tracker = self.make()
            assert tracker.open(where, run) == ""
            tell(tracker, range(count))
            tracker.save("all")
            tracker.close("failed")
        assert [self.told(where, run) for run in runs] == [self.expected(range(1)), self.expected(range(2))]

    def test_a_model_is_taken_by_those_that_say_so(self, tmp_path: Path) -> None:
        """The file may be deleted afterwards, and the same may be given again."""
        if not self.make().takes_models:
            pytest.skip("it takes no models")
        where, run = self.where(tmp_path), run_named("digits")
        for _ in range(2):
            tracker, file = self.make(), tmp_path / "given.safetensors"
            file.write_bytes(b"model")
            tracker.open(where, run)
            tracker.model(file)
            tracker.save("")
            tracker.close("completed")
            file.unlink()
        assert [path.read_bytes() for path in tmp_path.rglob("*.safetensors")].count(b"model") >= 1

    def test_where_it_cannot_write_it_says_so(self, tmp_path: Path) -> None:
        """A file lies where its folder should be."""
        (tmp_path / "taken").write_text("")
        with pytest.raises(CoveyError):
            self.make().open(str(tmp_path / "taken"), run_named("digits"))
