"""A model on the data of each node, beside what the node can do alone, for people."""

from __future__ import annotations

from typing import Any

from covey.cli.views.listing import Column, listing, pairs, safe_text, show
from covey.cli.views.tables import main_metrics, metrics_line
from covey.cli.views.words import number, state_text
from covey.client.models.evaluations import Evaluation, NodeEvaluation


def show_evaluation(shown: Evaluation) -> None:
    """Print the nodes with their figures, what they come to together, and who took no part."""
    show(_head(shown), _table(shown), _together(shown), _others(shown))


def _head(shown: Evaluation) -> Any:
    run = shown.run
    state = f"{run.state}: {run.reason}" if run.reason else run.state
    model = run.parent or str(run.spec.get("model", {}).get("initial", ""))
    return pairs([("run", f"{run.full_name} ({run.run})"), ("state", safe_text(state)), ("model", model)])


def _table(shown: Evaluation) -> list[Any]:
    took_part = shown.took_part
    if not took_part:
        return []
    names = main_metrics({name for node in took_part for name in node.metrics} or {shown.metric})
    names = [shown.metric, *(name for name in names if name != shown.metric)]
    columns = [Column("NODE"), Column("EXAMPLES", right=True), Column(names[0].upper(), right=True)]
    columns += [Column("ALONE", right=True), Column("GAIN", right=True)]
    columns += [Column(name.upper(), right=True, below="narrow") for name in names[1:]]
    columns += [Column("MISSING", below="always")]
    return listing(columns, [_row(node, names) for node in took_part])


def _row(node: NodeEvaluation, names: list[str]) -> tuple[Any, ...]:
    main, *others = names
    gain = node.gains.get(main)
    missing = "; ".join(f"{name}: {why}" for name, why in node.missing.items())
    return (
        safe_text(node.node),
        f"{node.examples:g}",
        number(node.metrics.get(main)),
        number(node.alone.get(main)),
        "" if gain is None else f"{gain:+.4f}",
        *(number(node.metrics.get(name)) for name in others),
        safe_text(missing),
    )


def _together(shown: Evaluation) -> Any:
    gains = {name: f"{value:+.4f}" for name, value in shown.gains.items()}
    return pairs(
        [
            ("all nodes", metrics_line(shown.metrics)),
            ("alone", metrics_line(shown.alone)),
            ("gain", ", ".join(f"{name} {text}" for name, text in sorted(gains.items()))),
            (f"gain in {shown.metric}", ", ".join(shown.gaining)),
            ("do not", ", ".join(shown.not_gaining)),
            ("central", metrics_line(shown.central)),
        ]
    )


def _others(shown: Evaluation) -> list[Any]:
    rows = [
        (safe_text(node.node), state_text(node.verdict), safe_text(node.reason))
        for node in shown.nodes
        if node.verdict != "accepted"
    ]
    return listing([Column("TOOK NO PART"), Column("ANSWER"), Column("REASON", below="narrow")], rows) if rows else []
