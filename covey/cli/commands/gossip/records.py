"""`covey gossip peers | audit`: what the records of a run's nodes say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.framework.command import Command, Failure, print_json
from covey.cli.framework.options import EXISTING_FILE, FOLDER, json_option

if TYPE_CHECKING:
    from covey.gossip.audit import AuditedEdge, MassAudit

MASS_FIELDS = ("exact", "live", "in_flight", "minted", "lost", "uncertain", "findings", "weighs", "delivered")
NAMED_FIELDS = (
    "named (who gave away more than it can have had: node, incarnation; in all: gave, minted, had; in one batch: "
    "sequence, units, most)"
)
EDGE_FIELDS = (
    "edges (a list: from, from_incarnation, to, to_incarnation, agrees; by the sender's account sent, sent_batches, "
    "waiting, reclaimed; by the receiver's applied, applied_batches; null where an account was not given)"
)
PEER_FIELDS = ("peer", "incarnation", "state", "step", "sent", "waiting", "reclaimed", "applied", "batches")
data_dir_option = click.option("--data-dir", type=FOLDER, required=True, help="The node's folder.")
run_option = click.option("--run", help="The run's name (its id, through a coordinator), where a node has several.")


@click.command(
    cls=Command,
    examples=("covey gossip peers --data-dir /srv/node", "covey gossip peers --data-dir /srv/node --json"),
    json_fields=("run", "node", f"peers (a list: {', '.join(PEER_FIELDS)})"),
)
@data_dir_option
@run_option
@json_option
def peers(data_dir: Path, run: str | None, as_json: bool) -> None:
    """List what this machine's node knows of its peers, and what it exchanged with each."""
    from covey.client.gossip_nodes import account_of, read_node

    node = read_node(data_dir, run)
    edges = {(edge["peer"], edge["incarnation"]): edge for edge in account_of(node)["edges"]}
    known = {(row["peer"], row["incarnation"]): row for row in node.peers}
    rows = [_peer(name, known.get(name, {}), edges.get(name, {})) for name in sorted(known.keys() | edges.keys())]
    if as_json:
        print_json({"run": node.facts.name, "node": node.facts.me.node, "peers": rows})
        return
    from covey.cli.views import gossip_tables, tables

    tables.show(gossip_tables.node_peers(rows, node.machine.policy.weighs))


def _peer(name: tuple[str, int], known: Mapping[str, Any], edge: Mapping[str, Any]) -> dict[str, Any]:
    mass = {key: edge.get(key, 0) for key in ("sent", "waiting", "reclaimed", "applied")}
    batches = edge.get("sent_batches", 0) + edge.get("applied_batches", 0)
    where = {"state": known.get("state", "unknown"), "step": known.get("step", -1)}
    return {"peer": name[0], "incarnation": name[1], **where, **mass, "batches": batches}


@click.command(
    cls=Command,
    examples=(
        "covey gossip audit /srv/a /srv/b /srv/c",
        "covey gossip status --data-dir /srv/a --json > a.json && covey gossip audit a.json b.json c.json --json",
    ),
    json_fields=(
        *MASS_FIELDS,
        "signatures (whether what was signed was looked at)",
        NAMED_FIELDS,
        "left (who said so, signed: node, incarnation)",
        EDGE_FIELDS,
    ),
)
@click.argument("sources", metavar="DATA_DIR|ACCOUNT.json...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--authority", type=EXISTING_FILE, help="Its certificate, where no data directory is given.")
@run_option
@json_option
def audit(sources: tuple[Path, ...], authority: Path | None, run: str | None, as_json: bool) -> None:
    """Compare the accounts of a run's nodes: whether any mass was made or lost, and by whom. Exit code 1 if so.

    The line of all of it is followed by what was exchanged along each edge, by the accounts of both ends.

    A node that gave away more than it began with and had, by what it signed itself, is named.

    Give the data directory of each node, or a file with what covey gossip status --json prints there. Accounts that are
    read while batches are being sent may differ by those: ask again when the nodes are done, or stopped.
    """
    from covey.client.gossip_nodes import audit_accounts, read_account, running
    from covey.client.gossip_receipts import authority_of

    authority_pem = authority_of(sources, authority)
    mass = audit_accounts([read_account(source, run) for source in sources], authority_pem)
    if as_json:
        figures = {name: getattr(mass, name) for name in MASS_FIELDS[1:]}
        more = {"named": _named(mass), "edges": list(map(edge_fields, mass.edges))}
        more["left"] = [{"node": who.node, "incarnation": who.number} for who in mass.left]
        print_json({"exact": mass.is_exact, **figures, "signatures": bool(authority_pem), **more})
    else:
        from covey.cli.views import gossip_tables, tables

        click.echo(gossip_tables.mass_line(mass))
        tables.show(*gossip_tables.edges(mass))
    if not mass.is_exact:
        at_work = running(sources, run)
        again = (
            f"; still running: {', '.join(at_work)}: accounts differ by what is on its way, and until all have heard "
            "of an eviction; ask again when the nodes are done, or stopped"
        )
        raise Failure("the accounts do not agree: " + "; ".join(mass.findings) + (again if at_work else ""))


def _named(mass: MassAudit) -> list[dict[str, Any]]:
    return [
        {
            "node": each.who.node,
            "incarnation": each.who.number,
            **{name: value for name, value in vars(each).items() if isinstance(value, int)},
        }
        for each in mass.named
    ]


def edge_fields(edge: AuditedEdge) -> dict[str, Any]:
    """An edge's counters as JSON; mass in units of 2 ** -52."""
    ends = {"from": edge.sender.node, "from_incarnation": edge.sender.number}
    ends |= {"to": edge.receiver.node, "to_incarnation": edge.receiver.number}
    out, into = edge.given, edge.had
    given = {name: None if out is None else getattr(out, name) for name in ("sent", "waiting", "reclaimed")}
    given["sent_batches"] = None if out is None else out.sequence
    had = {"applied": into and into.applied, "applied_batches": into and into.sequence}
    return {**ends, **given, **had, "agrees": edge.agrees}
