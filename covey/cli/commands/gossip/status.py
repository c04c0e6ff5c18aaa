"""`covey gossip status`: how far nodes of this machine are, what each waits for, and why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.framework.command import Command, print_json, print_json_line
from covey.cli.framework.options import FOLDER, json_option

if TYPE_CHECKING:
    from covey.client.gossip_nodes import NodeState

LOOK_S = 1.0
STATUS_FIELDS = (
    "run",
    "node",
    "incarnation",
    "protocol",
    "weighs",
    "steps",
    "steps_in_all",
    "phase",
    "ended",
    "reason",
    "weight",
    "model_sha256",
    "trained_s",
    "blocked_s",
    "metrics",
    "filters (of its site, that its newest training has passed)",
    "contradictions",
    "running (whether its process says so)",
    "peers (how many are there, away, finished, left, evicted)",
    "waits_for",
    "waits_since (Unix seconds)",
    "waits_why (a list, in words)",
    "under_way (batches: peer, incarnation, sequence, step, since, tries, error)",
    "account (what covey gossip audit compares)",
)


@click.command(
    cls=Command,
    examples=(
        "covey gossip status --data-dir /srv/node",
        "covey gossip status --data-dir /srv/a --data-dir /srv/b --watch",
        "covey gossip status --data-dir /srv/node --json",
    ),
    json_fields=STATUS_FIELDS,
)
@click.option("--data-dir", "data_dirs", type=FOLDER, required=True, multiple=True, help="A node's folder; repeatable.")
@click.option("--run", help="The run's name (its id, through a coordinator), where a node has several.")
@click.option("--watch", is_flag=True, help="Show it again at each change, until all parts have ended.")
@json_option
def status(data_dirs: tuple[Path, ...], run: str | None, watch: bool, as_json: bool) -> None:
    """Show how far this machine's node is, by its record, and what it waits for; the node may run meanwhile.

    With several data directories: a line a node. With --json: an object, of several nodes a list; with --watch as well
    one object a line, for each change of a node.
    """
    if not watch:
        _show([_read(data_dir, run) for data_dir in data_dirs], as_json)
    elif as_json:
        _lines(data_dirs, run)
    else:
        _live(data_dirs, run)


def _read(data_dir: Path, run: str | None) -> dict[str, Any]:
    from covey.client.gossip_nodes import account_of, read_node

    node = read_node(data_dir, run)
    return {**status_of(node), "account": account_of(node)}


def _show(nodes: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(nodes[0] if len(nodes) == 1 else nodes)
        return
    from covey.cli.views import gossip_status, tables

    tables.show(*(gossip_status.details(nodes[0]) if len(nodes) == 1 else gossip_status.table(nodes)))


def _lines(data_dirs: tuple[Path, ...], run: str | None) -> None:
    shown: dict[Path, Any] = {}
    while True:
        for data_dir in data_dirs:
            values = _read(data_dir, run)
            if shown.get(data_dir) != values:
                print_json_line(values)
            shown[data_dir] = values
        if all(values["ended"] for values in shown.values()):
            return
        time.sleep(LOOK_S)


def _live(data_dirs: tuple[Path, ...], run: str | None) -> None:
    """On a terminal a table that is drawn again; else a table for each change."""
    from covey.cli.views import gossip_status

    with gossip_status.viewer() as show:
        while True:
            nodes = [_read(data_dir, run) for data_dir in data_dirs]
            show(nodes)
            if all(values["ended"] for values in nodes):
                return
            time.sleep(LOOK_S)


def status_of(node: NodeState) -> dict[str, Any]:
    """What is shown of a node."""
    from covey.client.gossip_nodes import mass_of, proven

    machine, facts, now = node.machine, node.facts, node.now
    rows = node.peers if now is None else now.peers
    return {
        "run": facts.name,
        "node": facts.me.node,
        "incarnation": facts.me.number,
        "protocol": node.spec.gossip.protocol.name,
        "weighs": machine.policy.weighs,
        "steps": machine.step if now is None else now.step,
        "steps_in_all": machine.policy.steps,
        "phase": machine.phase if now is None else now.phase,
        "ended": facts.ended,
        "reason": facts.reason,
        "weight": mass_of(node),
        "model_sha256": node.model_sha256,
        "trained_s": round(node.trained_s, 3),
        "blocked_s": round(node.blocked_s, 3),
        "metrics": dict(node.metrics),
        "filters": list(node.filters),
        "contradictions": [*machine.exchange.contradictions.values(), *proven(node)],
        "running": now is not None,
        "peers": dict(Counter(str(row["state"]) for row in rows)),
        **_waits(node),
    }


def _waits(node: NodeState) -> Mapping[str, Any]:
    now = node.now
    if now is None:
        return {"waits_for": "", "waits_since": None, "waits_why": [], "under_way": []}
    waits_for = "; ".join(filter(None, [now.obstacle, now.waits_for]))
    return {
        "waits_for": waits_for,
        "waits_since": now.since if waits_for else None,
        "waits_why": node.why_it_waits if waits_for else node.unanswered,
        "under_way": [vars(batch) for batch in now.under_way],
    }
