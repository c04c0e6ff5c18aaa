"""What came of a run that only evaluates: node by node, the model beside what each can do alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from covey.client.models.best import less_is_better
from covey.client.reading.names import RunName
from covey.client.values import Node, RoundDetail, Run, Update
from covey.errors import NotFound
from covey.metrics import ALONE, EVALUATED, NODES, counted, missing, ratios

Numbers = Mapping[str, float]


class Runs(Protocol):
    """Where runs are read: `covey.client.connection.Connection`."""

    def run(self, run: RunName) -> Run:
        """A run."""

    def round(self, run: RunName, number: int) -> RoundDetail:
        """One of its rounds."""

    def nodes(self) -> Sequence[Node]:
        """All nodes."""


@dataclass(frozen=True)
class NodeEvaluation:
    """What one node measured on its own data, or why it did not."""

    node: str
    verdict: str
    """`accepted`; else that of its answer, or `not asked`."""
    reason: str = ""
    """Why it took no part."""
    examples: float = 0.0
    """How many it evaluated on."""
    metrics: Numbers = field(default_factory=dict)
    """Of the given model."""
    alone: Numbers = field(default_factory=dict)
    """Of what the node trained with nobody else; none where that was not asked for."""
    gains: Numbers = field(default_factory=dict)
    """The first less the second."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why metrics have no value, by name."""


@dataclass(frozen=True)
class Evaluation:
    """What all nodes measured.

    Attributes:
        run: The run.
        metric: What says which nodes gain: that of `[evaluation] metric`, or the first by name that there is.
        nodes: Those that took part, then the others with their reasons; by name.
        metrics: Of the given model, the nodes' together: weighted by examples.
        alone: The same of what they trained alone.
        gains: The mean of the nodes' gains, each node counted once.
        central: What the coordinator measured on central data, where the task has them.
    """

    run: Run
    metric: str
    nodes: tuple[NodeEvaluation, ...]
    metrics: Numbers = field(default_factory=dict)
    alone: Numbers = field(default_factory=dict)
    gains: Numbers = field(default_factory=dict)
    central: Numbers = field(default_factory=dict)

    @property
    def took_part(self) -> tuple[NodeEvaluation, ...]:
        """The nodes with an answer that counts."""
        return tuple(node for node in self.nodes if node.verdict == "accepted")

    @property
    def gaining(self) -> tuple[str, ...]:
        """The nodes to which the given model is better than what they can do alone, by `metric`."""
        return tuple(node for node, gain in self._better() if gain > 0)

    @property
    def not_gaining(self) -> tuple[str, ...]:
        """Those to which it is no better."""
        return tuple(node for node, gain in self._better() if gain <= 0)

    def _better(self) -> Iterator[tuple[str, float]]:
        section = self.run.spec.get("evaluation", {})
        is_named = self.metric == section.get("metric")
        less = section.get("goal") == "min" if is_named else less_is_better(self.metric)
        for node in self.nodes:
            if self.metric in node.gains:
                yield node.node, -node.gains[self.metric] if less else node.gains[self.metric]


def evaluation_in(runs: Runs, run: RunName) -> Evaluation:
    """What came of a run that only evaluates, as far as it is.

    Raises:
        NotFound: The run is none of these.
    """
    shown = runs.run(run)
    section = shown.spec.get("evaluation", {})
    if not section.get("only"):
        raise NotFound(
            f"run {shown.full_name} trains; covey run evaluate {shown.full_name} evaluates its model on the nodes"
        )
    answers = _answers(runs, shown)
    nodes = [_node(update) for _, update in sorted(answers.items())]
    selected = section.get("nodes", ())
    nodes += [_not_asked(node, selected, shown) for node in runs.nodes() if node.node not in answers]
    nodes.sort(key=lambda node: (node.verdict != "accepted", node.node))
    measured = sorted({name for node in nodes for name in node.metrics})
    wanted = str(section.get("metric", ""))
    of_nodes = {n.removeprefix(NODES): v for n, v in shown.metrics.items() if n.startswith(NODES)}
    return Evaluation(
        shown,
        wanted if wanted in measured or not measured else measured[0],
        tuple(nodes),
        {name: value for name, value in of_nodes.items() if not name.startswith(ALONE)},
        {name.removeprefix(ALONE): value for name, value in of_nodes.items() if name.startswith(ALONE)},
        _means([node.gains for node in nodes]),
        {name: value for name, value in shown.metrics.items() if not name.startswith(NODES)},
    )


def _answers(runs: Runs, run: Run) -> dict[str, Update]:
    try:
        return {update.node: update for update in runs.round(run, 1).updates}
    except NotFound:
        return {}  # nobody was asked yet


def _node(update: Update) -> NodeEvaluation:
    if update.verdict != "accepted":
        return NodeEvaluation(update.node, update.verdict, update.reason)
    measured = {**update.metrics, **update.missing}
    values = ratios(
        {name.removeprefix(EVALUATED): value for name, value in measured.items() if name.startswith(EVALUATED)}
    )
    metrics = {name: value for name, value in counted(values).items() if not name.startswith(ALONE)}
    alone = {name.removeprefix(ALONE): value for name, value in counted(values).items() if name.startswith(ALONE)}
    gains = {name: metrics[name] - alone[name] for name in metrics if name in alone}
    return NodeEvaluation(update.node, update.verdict, "", update.weight, metrics, alone, gains, missing(values))


def _not_asked(node: Node, selected: Sequence[str], run: Run) -> NodeEvaluation:
    if node.state in ("evicted", "left"):
        reason = f"it is {node.state}"
    elif selected and node.node not in selected:
        reason = "it was not selected"
    else:
        reason = "it was not connected when the round began" if run.started_at else "the run has not begun"
    return NodeEvaluation(node.node, "not asked", reason)


def _means(all_gains: Sequence[Numbers]) -> dict[str, float]:
    names = sorted({name for gains in all_gains for name in gains})
    values = {name: [gains[name] for gains in all_gains if name in gains] for name in names}
    return {name: sum(numbers) / len(numbers) for name, numbers in values.items()}
