"""What people see of a gossip run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from covey.cli.views.listing import Column, listing, safe_text
from covey.cli.views.tables import main_metrics, metrics_line, number, pairs, span, when
from covey.gossip.mass import weight

if TYPE_CHECKING:
    from covey.client.experiments.gossip import GossipOutcome
    from covey.client.gossip_consensus import Consensus
    from covey.client.reading.gossip_parts import GossipView
    from covey.client.reading.gossip_steps import GossipStep
    from covey.gossip.audit import AuditedEdge, MassAudit
    from covey.gossip.push_sum.weighing import Weighs

PEERS_SHOWN = 32
"""Of a large run the first ones are listed; `--json` has all."""


def summary(outcome: GossipOutcome) -> Text:
    """The run as a whole."""
    finals = [peer for peer in outcome.peers if peer.distance is not None]
    trained = sum(peer.trained for peer in outcome.peers)
    blocked = sum(peer.blocked for peer in outcome.peers)
    size = f"{outcome.model_bytes / 1e6:.2f} MB each"
    lost = f", {outcome.lost_messages} of them lost" if outcome.lost_messages else ""
    return pairs(
        [
            ("consensus", metrics_line(outcome.metrics)),
            ("model sha256", outcome.model_sha256),
            ("spread", f"at most {max((peer.distance or 0.0) for peer in finals):.4f} from the mean" if finals else ""),
            ("mass" if outcome.mass.weighs == "mass" else "exchanges", mass_line(outcome.mass)),
            ("models sent", f"{outcome.messages} ({size}){lost}"),
            ("time", f"{outcome.virtual_time:.1f} steps of training, {span(outcome.seconds)} here"),
            ("goodput", f"{trained / (trained + blocked):.1%} of the nodes' time was training" if trained else ""),
        ]
    )


def mass_line(mass: MassAudit) -> str:
    """The audit on one line; exact sums in units of a node's first mass."""
    verdict = "exact" if mass.is_exact else "CONTRADICTORY"
    if mass.weighs == "receiver":
        once = ", each had once" if mass.is_exact else ""
        waiting = f", {mass.in_flight} on their way" if mass.in_flight else ""
        return f"{verdict}: {mass.delivered} models{once}{waiting}; no mass, for receivers weigh"
    parts = [f"{weight(mass.live):g} live", f"{weight(mass.minted):g} minted"]
    parts += [f"{weight(mass.in_flight):g} in flight"] if mass.in_flight else []
    parts += [f"{weight(mass.lost):g} lost"] if mass.lost else []
    parts += [f"up to {weight(mass.uncertain):g} uncertain"] if mass.uncertain else []
    parts += [f"left by their own signature: {', '.join(map(str, mass.left))}"] if mass.left else []
    return f"{verdict}: {', '.join(parts)}"


def edges(mass: MassAudit) -> list[Any]:
    """What each node gave each other one and that one had, those that do not agree first.

    Mass is in units of a node's first, or models where there is none. Empty: whose account it is was not given.
    """
    rows = [_edge(edge, mass.weighs) for edge in sorted(mass.edges, key=lambda edge: edge.agrees)[:PEERS_SHOWN]]
    if not rows:
        return []
    names = ("FROM", "TO", "GAVE", "IN BATCHES", "WAITING", "TAKEN BACK", "HAD", "IN BATCHES", "VERDICT")
    columns = [Column(name, right=name not in ("FROM", "TO", "VERDICT")) for name in names]
    more = len(mass.edges) - len(rows)
    return [*listing(columns, rows), *([Text(f"and {more} edges more; --json has all")] if more else [])]


def _edge(edge: AuditedEdge, weighs: Weighs) -> tuple[str, ...]:
    def shown(units: int) -> str:
        return f"{weight(units):.4f}" if weighs == "mass" else str(units)

    out, into = edge.given, edge.had
    given = ("", "") if out is None else (shown(out.sent), str(out.sequence))
    aside = ("", "") if out is None else tuple(shown(units) if units else "" for units in (out.waiting, out.reclaimed))
    had = ("", "") if into is None else (shown(into.applied), str(into.sequence))
    return (str(edge.sender), str(edge.receiver), *given, *aside, *had, "" if edge.agrees else "they do not agree")


def peers(outcome: GossipOutcome) -> Table:
    """A line a node."""
    table = Table(box=None, pad_edge=False)
    for name in ("NODE", "ENDED", "STEPS", "WEIGHT", "LOSS", "SPREAD", "ACCURACY", "BLOCKED", "SENT"):
        table.add_column(name, justify="left" if name in ("NODE", "ENDED") else "right")
    for peer in outcome.peers[:PEERS_SHOWN]:
        accuracy = peer.metrics.get("accuracy")
        share = peer.blocked / (peer.trained + peer.blocked) if peer.trained else 0.0
        table.add_row(
            peer.node,
            peer.reason,
            str(peer.steps),
            f"{peer.weight:.3f}",
            number(peer.loss),
            number(peer.distance),
            number(accuracy),
            f"{share:.1%}",
            str(peer.batches),
        )
    if len(outcome.peers) > PEERS_SHOWN:
        table.caption = f"the first {PEERS_SHOWN} of {len(outcome.peers)} nodes; --json has all"
    return table


def parts(view: GossipView, *, is_ended: bool) -> list[Any]:
    """What each node of a run stated to its coordinator, and what their accounts of mass come to."""
    has_mass = view.mass.weighs == "mass"
    rows = [
        (
            part.node + (f" ({part.incarnation})" if part.incarnation > 1 else ""),
            part.state,
            str(part.step) if part.incarnation else "",
            f"{part.weight:.3f}" if part.incarnation and has_mass else "",
            number(part.metrics.get("loss")),
            f"{part.blocked_s / (part.trained_s + part.blocked_s):.1%}" if part.trained_s else "",
            part.address or "(it only calls)",
            safe_text(part.reason),
            safe_text(", ".join(part.filters)),
        )
        for part in view.parts[:PEERS_SHOWN]
    ]
    columns = [Column("NODE"), Column("STATE"), *(Column(name, right=True) for name in ("STEP", "MASS", "LOSS"))]
    columns += [Column("BLOCKED", right=True), Column("PEERS CALL", below="narrow"), Column("REASON", below="always")]
    columns += [Column("FILTERS", below="always")]
    more = (
        [Text(f"the first {PEERS_SHOWN} of {len(view.parts)} nodes; --json has all")]
        if view.parts[PEERS_SHOWN:]
        else []
    )
    return [*listing(columns, rows), *more, *_mass(view.mass, is_ended=is_ended)]


def _mass(mass: MassAudit, *, is_ended: bool) -> list[Text]:
    """The audit; while nodes are at work their accounts are of different moments, and compared at the end."""
    name = "mass" if mass.weighs == "mass" else "exchanges"
    if not mass.minted:
        return []
    if is_ended:
        return [pairs([(name, mass_line(mass))]), *map(safe_text, mass.findings)]
    line = (
        f"{weight(mass.live):g} live of {weight(mass.minted):g} minted"
        if mass.weighs == "mass"
        else f"{mass.delivered} models"
    )
    return [pairs([(name, f"{line}, as stated at different moments; compared when the run has ended")])]


def consensus(outcome: Consensus) -> list[Any]:
    """The mean and each model that is part of it, a line each."""
    has_mass = outcome.weighs == "mass"
    names = main_metrics(outcome.metrics)
    mean = ("MEAN", "", "", "", *(number(outcome.metrics.get(name)) for name in names))
    rows = [
        (
            part.node,
            str(part.steps),
            f"{part.weight:.4f}" if has_mass else "",
            f"{part.distance:.6f}",
            *(number(part.metrics.get(name)) for name in names),
        )
        for part in outcome.nodes
    ]
    columns = [Column(name, right=name != "NODE") for name in ("NODE", "STEP", "MASS", "DISTANCE")]
    columns += [Column(name.upper(), right=True) for name in names]
    return listing(columns, [*rows, mean] if names else rows)


def steps(rows: Sequence[GossipStep]) -> list[Any]:
    """A line a step of a node."""
    names = main_metrics({name for step in rows for name in step.metrics})
    columns = [Column(name, right=name != "NODE") for name in ("NODE", "STEP", "MASS")]
    columns += [Column(name.upper(), right=True) for name in names]
    columns += [Column("BLOCKED", right=True), Column("AT", below="narrow")]
    return listing(
        columns,
        [
            (
                step.node + (f" ({step.incarnation})" if step.incarnation > 1 else ""),
                str(step.step),
                f"{step.weight:.4f}",
                *(number(step.metrics.get(name)) for name in names),
                f"{step.blocked_s / (step.trained_s + step.blocked_s):.1%}" if step.trained_s else "",
                when(step.at),
            )
            for step in rows
        ],
    )


def node_peers(rows: Sequence[Mapping[str, Any]], weighs: Weighs = "mass") -> Table:
    """What a node knows of its peers, a line each; mass in units of a node's first, or models where there is none."""
    table = Table(box=None, pad_edge=False)
    for name in ("PEER", "STATE", "STEP", "GAVE", "WAITING", "HAD", "BATCHES"):
        table.add_column(name, justify="left" if name in ("PEER", "STATE") else "right")
    for row in rows:
        name = row["peer"] if row["incarnation"] == 1 else f"{row['peer']} (incarnation {row['incarnation']})"
        units = [row[key] for key in ("sent", "waiting", "applied")]
        masses = [f"{weight(unit):.4f}" if weighs == "mass" else str(unit) for unit in units]
        table.add_row(name, row["state"], str(row["step"]), *masses, str(row["batches"]))
    return table
