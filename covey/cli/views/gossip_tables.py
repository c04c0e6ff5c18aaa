"""What people see of a gossip run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from covey.cli.views.tables import metrics_line, number, pairs, span
from covey.gossip.mass import weight

if TYPE_CHECKING:
    from covey.client.experiments.gossip import GossipOutcome
    from covey.client.reading.gossip_parts import GossipView
    from covey.gossip.audit import MassAudit
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
    return f"{verdict}: {', '.join(parts)}"


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
    """What each node of a run stated to its coordinator; and all their mass, once nobody is at work any more."""
    table = Table(box=None, pad_edge=False)
    for name in ("NODE", "STATE", "STEP", "MASS", "LOSS", "BLOCKED", "PEERS CALL", "REASON"):
        table.add_column(name, justify="right" if name in ("STEP", "MASS", "LOSS", "BLOCKED") else "left")
    for part in view.parts[:PEERS_SHOWN]:
        busy, idle = part.trained_s, part.blocked_s
        table.add_row(
            part.node,
            part.state + (f" ({part.incarnation})" if part.incarnation > 1 else ""),
            str(part.step) if part.incarnation else "",
            f"{part.weight:.3f}" if part.incarnation else "",
            number(part.metrics.get("loss")),
            f"{idle / (busy + idle):.1%}" if busy else "",
            part.address or "(it only calls)",
            part.reason,
        )
    if len(view.parts) > PEERS_SHOWN:
        table.caption = f"the first {PEERS_SHOWN} of {len(view.parts)} nodes; --json has all"
    mass = Text(f"mass          {mass_line(view.mass)}") if is_ended and view.mass.minted else Text("")
    return [table, mass, *(Text(finding) for finding in view.mass.findings if is_ended)]


def node_status(values: Mapping[str, Any]) -> Text:
    """One node's part in a run, by its record."""
    incarnation = f" (incarnation {values['incarnation']})" if values["incarnation"] > 1 else ""
    ended = values["ended"] or f"in progress ({values['phase']})"
    busy, idle = values["trained_s"], values["blocked_s"]
    return pairs(
        [
            ("run", values["run"]),
            ("node", f"{values['node']}{incarnation}"),
            ("protocol", values["protocol"]),
            ("step", f"{values['steps']} of {values['steps_in_all']}"),
            ("state", f"{ended}: {values['reason']}" if values["reason"] else ended),
            ("mass", f"{values['weight']:g}" if values["weighs"] == "mass" else ""),
            ("model sha256", values["model_sha256"]),
            ("last training", metrics_line(values["metrics"])),
            ("goodput", f"{busy / (busy + idle):.1%} of its time was training" if busy else ""),
            ("contradictions", "; ".join(values["contradictions"])),
        ]
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
