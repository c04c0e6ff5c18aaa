"""Who does what now: what only the coordinator knows that is running, beside what is on record."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator

from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.facts import NodeProgress
from covey.coordinator.studies import full_name_of
from covey.machines.shortage import listed
from covey.protos import admin_pb2 as pb

_AT_WORK = ("invited", "queued", "waiting", "downloading", "training", "uploading")
MOST_SHOWN = 100
"""Nodes of an open round that one message shows."""


def progress_views(
    run: ActiveRun | None, connected: Container[str], number: int = 0
) -> tuple[list[pb.NodeProgress], int]:
    """What the nodes of a run's open round do now, by name, and how many there are.

    With `number`: those for which this round is open. Of more than `MOST_SHOWN`, those that began something else last.
    """
    if run is None:
        return [], 0
    nodes = [
        (node, progress)
        for node, progress in run.progress.nodes.items()
        if not number or run.mode.open_round(node) == number
    ]
    newest = heapq.nlargest(MOST_SHOWN, nodes, key=lambda item: item[1].since) if len(nodes) > MOST_SHOWN else nodes
    by_name = sorted(newest, key=lambda item: item[0])
    return [_progress_view(node, progress, connected) for node, progress in by_name], len(nodes)


def _progress_view(node: str, progress: NodeProgress, connected: Container[str]) -> pb.NodeProgress:
    fields = vars(progress) | {"phase": _phase(node, progress, connected)}
    del fields["waits_for"]  # which is part of the run's reason
    return pb.NodeProgress(node=node, **fields)


def _phase(node: str, progress: NodeProgress, connected: Container[str]) -> str:
    """What a node does; one that has work and no connection is away."""
    return "away" if progress.phase in _AT_WORK and node not in connected else progress.phase


def works_of(runs: ActiveRuns, node: str) -> list[pb.NodeWork]:
    """What a connected node works on now, run by run."""
    return [
        pb.NodeWork(
            run=run.run.run,
            name=full_name_of(run.run),
            round=run.mode.open_round(node),
            phase=progress.phase,
            step=progress.step,
            steps=progress.steps,
            since=progress.since,
            bytes_received=progress.bytes_received,
            bytes_sent=progress.bytes_sent,
        )
        for run in runs.active.values()
        if (progress := run.progress.nodes.get(node)) is not None
        if progress.phase in _AT_WORK and run.collecting(node, run.mode.open_round(node))
    ]


def add_received(run: ActiveRun | None, view: pb.Round) -> pb.Round:
    """An open round with the bytes that came in, those of unfinished uploads too."""
    if run is not None and view.state == "collecting":
        open_ones = (p for node, p in list(run.progress.nodes.items()) if run.mode.open_round(node) == view.round)
        view.bytes_received = max(view.bytes_received, sum(progress.bytes_received for progress in open_ones))
    return view


def add_resent(run: ActiveRun | None, detail: pb.RoundDetail) -> None:
    """An open round with the bytes that went twice."""
    if run is not None:
        resent = run.progress.sent_again.of(detail.round.round)
        detail.resent_up += resent.up
        detail.resent_down += resent.down


def awaited_by(runs: ActiveRuns) -> Iterator[str]:
    """The open rounds, and evaluations, in words: what a coordinator that is to stop waits for."""
    for run in runs.active.values():
        if run.is_idle:
            continue
        state = run.machine.state if run.machine is not None else "starting"
        busy = [
            f"{node} ({progress.phase})" for node, progress in run.progress.nodes.items() if progress.phase in _AT_WORK
        ]
        of = f": {listed(busy)}" if busy and state != "finishing" else ""
        waits = f"; {awaited}" if (awaited := run.awaited) else ""
        yield f"run {run.run.name} ({run.run.run}) is {state}{of}{waits}"
