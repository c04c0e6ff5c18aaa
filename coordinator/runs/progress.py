"""What the nodes of one run do now, and what went over their links: for people who watch, and for metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from covey.coordinator.runs.facts import NodeProgress
from covey.coordinator.runs.ports import RunMetrics
from covey.coordinator.runs.sent_again import Resent, SentAgain


class RunProgress:
    """Of one run.

    Args:
        run: Its id.
        metrics: What is counted.
        now: The time, in Unix seconds.
    """

    def __init__(self, run: str, metrics: RunMetrics, now: Callable[[], float]) -> None:
        self._run, self._metrics, self._now = run, metrics, now
        self.nodes: dict[str, NodeProgress] = {}
        """What each node does in its open round, or how its part ended."""
        self.bytes_received = self.bytes_sent = 0
        """Since the mode began to count."""
        self.sent_again = SentAgain()

    def entered(self, node: str, progress: NodeProgress) -> None:
        """This is what a node does in its open round, or how its part ended."""
        before = self.nodes.get(node)
        if before is None or progress.phase == "invited":
            before = NodeProgress("")
        since = before.since if before.phase == progress.phase else self._now()
        self.nodes[node] = replace(
            progress, since=since, bytes_received=before.bytes_received, bytes_sent=before.bytes_sent
        )
        self._metrics.entered(self._run, node, progress.phase)

    def received(self, node: str, count: int) -> None:
        """So many bytes of an update came from a node."""
        self.bytes_received += count
        if (progress := self.nodes.get(node)) is not None:
            self.nodes[node] = replace(progress, bytes_received=progress.bytes_received + count)
        self._metrics.count_received(node, count)

    def sent(self, node: str, count: int) -> None:
        """So many bytes of a model went to a node."""
        self.bytes_sent += count
        if (progress := self.nodes.get(node)) is not None:
            self.nodes[node] = replace(progress, bytes_sent=progress.bytes_sent + count)
        self._metrics.count_sent(node, count)

    def resent(self, node: str, number: int, resent: Resent) -> None:
        """What passed in a round before a transfer broke, and passes again."""
        self.sent_again.note(number, resent)
        self._metrics.count_resent(node, resent.up + resent.down)

    def ended(self, state: str) -> None:
        """The run has ended, and with it what its nodes did for it."""
        self._metrics.run_ended(state)
        if state == "failed" and self.nodes:
            self._metrics.round_ended("failed")
        for node in self.nodes:
            self._metrics.entered(self._run, node, state)
