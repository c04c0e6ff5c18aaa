"""Who does what now, for whoever watches: never more of it than fits a message."""

from __future__ import annotations

from covey.coordinator.admin.at_work import MOST_SHOWN, progress_views
from covey.coordinator.runs.facts import NodeProgress


def test_of_many_nodes_those_are_shown_that_began_something_else_last(world):
    world.submit()
    active = world.active("run")
    names = [f"n{number:04}" for number in range(3 * MOST_SHOWN)]
    active.progress.nodes = {name: NodeProgress("training", since=float(index)) for index, name in enumerate(names)}
    active.progress.nodes["n0003"] = NodeProgress("uploading", since=1e6)
    shown, count = progress_views(active, set(names))
    assert count == len(names)
    assert [view.node for view in shown] == ["n0003", *names[1 - MOST_SHOWN :]]
    assert (shown[0].phase, shown[1].phase) == ("uploading", "training")


def test_of_few_all_are_shown_by_name_and_a_run_that_is_not_active_has_none(world):
    world.submit()
    active = world.active("run")
    active.progress.nodes = {name: NodeProgress("invited", since=1.0) for name in ("bob", "ada")}
    shown, count = progress_views(active, {"ada"})
    assert ([(view.node, view.phase) for view in shown], count) == ([("ada", "invited"), ("bob", "away")], 2)
    assert progress_views(None, set()) == ([], 0)
