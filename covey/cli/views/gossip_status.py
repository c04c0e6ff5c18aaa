"""How nodes of a gossip run are, by their records and by what their processes say of themselves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Group as Stack
from rich.live import Live

from covey.cli.views.listing import Column, console, flat, listing, pairs, safe_text, show
from covey.cli.views.tables import metrics_line, number, span

Status = Mapping[str, Any]
"""What `covey gossip status --json` has of a node."""
COUNTED = (("there", "live"), ("finished", "through"), ("away", "suspected"), ("left", "left"), ("evicted", "evicted"))


def details(node: Status) -> list[Any]:
    """Everything about one node."""
    incarnation = f" (incarnation {node['incarnation']})" if node["incarnation"] > 1 else ""
    busy, idle = node["trained_s"], node["blocked_s"]
    state = _state(node) + ("" if node["running"] or node["ended"] else "; its process is not there: start it again")
    return [
        pairs(
            [
                ("run", node["run"]),
                ("node", f"{node['node']}{incarnation}"),
                ("protocol", node["protocol"]),
                ("step", f"{node['steps']} of {node['steps_in_all']}"),
                ("state", f"{state}: {node['reason']}" if node["reason"] else state),
                ("waits for", _waits(node)),
                *(("", reason) for reason in node["waits_why"]),
                ("peers", _peers(node)),
                ("mass", f"{node['weight']:g}" if node["weighs"] == "mass" else ""),
                ("model sha256", node["model_sha256"]),
                ("training", metrics_line(node["metrics"])),
                ("outgoing filters", ", ".join(node["filters"])),
                ("goodput", f"{busy / (busy + idle):.1%} of its time was training" if busy else ""),
                ("contradictions", "; ".join(node["contradictions"])),
            ]
        )
    ]


def table(nodes: Sequence[Status]) -> list[Any]:
    """A line a node; below, what it waits for and why, and what the peers say that cannot be."""
    has_mass = any(node["weighs"] == "mass" for node in nodes)
    return listing(
        [
            Column("NODE"),
            Column("STATE"),
            Column("STEP", right=True),
            Column("MASS", right=True),
            Column("LOSS", right=True),
            Column("PEERS", below="narrow"),
            Column("WAITS FOR", below="always"),
            Column("WHY", below="always"),
            Column("REASON", below="always"),
            Column("FILTERS", below="always"),
            Column("CONTRADICTIONS", below="always"),
        ],
        [
            (
                node["node"] + (f" ({node['incarnation']})" if node["incarnation"] > 1 else ""),
                _state(node),
                f"{node['steps']}/{node['steps_in_all']}",
                f"{node['weight']:.3f}" if has_mass else "",
                number(node["metrics"].get("loss")),
                _peers(node),
                safe_text(_waits(node)),
                safe_text("; ".join(node["waits_why"])),
                safe_text(node["reason"]),
                safe_text(", ".join(node["filters"])),
                safe_text("; ".join(node["contradictions"])),
            )
            for node in nodes
        ],
    )


def _state(node: Status) -> str:
    return str(node["ended"] or (node["phase"] if node["running"] else "not running"))


def _peers(node: Status) -> str:
    return ", ".join(f"{node['peers'][state]} {word}" for state, word in COUNTED if node["peers"].get(state))


def _waits(node: Status) -> str:
    if not node["waits_for"]:
        return ""
    return f"{node['waits_for'].removeprefix('waiting for ')}, for {span(max(0.0, time.time() - node['waits_since']))}"


@contextmanager
def viewer() -> Iterator[Callable[[Sequence[Status]], None]]:
    """What shows nodes again and again: on a terminal in place, else below each other where something has changed."""
    if sys.stdout.isatty():
        with Live(console=console(), auto_refresh=False) as live:
            yield lambda nodes: live.update(Stack(*flat(table(nodes))), refresh=True)
        return
    shown: list[Sequence[Status]] = [()]

    def show_changed(nodes: Sequence[Status]) -> None:
        if nodes != shown[0]:
            shown[0] = nodes
            show(*table(nodes))
            sys.stdout.flush()

    yield show_changed
