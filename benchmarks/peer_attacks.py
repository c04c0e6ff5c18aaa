"""What adversaries among peers make of each gossip protocol: digits, simulated, all-to-all.

    python -m benchmarks.peer_attacks
    python -m benchmarks.peer_attacks --nodes 7 --adversaries 1 --steps 60 --page docs/results.md

Each cell is the test accuracy of the mean of the honest nodes' final models, and the largest distance of one of these
from it (Euclidean). A protocol holds (bold) where the accuracy is within 3 points of its own without adversaries. Data
are independent, everybody sends to everybody (`epidemic`: to a few), and adversaries know what they were sent.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.methods.page import update
from covey.client.experiments.gossip import gossip_plan, simulate
from covey.simulation.adversaries import Attack

PART = "peer-attacks"
HOLDS = 0.03
ROBUST = ("clipped-gossip", "nearest-neighbour-averaging", "trimmed-mean")
PROTOCOLS = ("sgp", "agp", "d-psgd", "epidemic", *ROBUST)
NONE = "none"
ATTACKS: dict[str, dict[str, Any]] = {
    NONE: {},
    "constant": {"value": 100.0},
    "sign-flip": {},
    "alie": {},
    "dissensus": {},
    "lying-mass": {},
}
SPEC = """
name = "peer-attacks"
mode = "gossip"
seed = 3
[task]
name = "digits"
[training]
local_steps = 2
learning_rate = 0.5
[gossip]
steps = {steps}
protocol = {protocol}
mixing = {{ name = "{mixing}" }}
topology = {{ name = "{topology}" }}
"""


def specification(protocol: str, steps: int, adversaries: int) -> str:
    """The run of one row."""
    robust = protocol in ROBUST
    name = f'{{ name = "{protocol}", options = {{ f = {adversaries} }} }}' if robust else f'"{protocol}"'
    mixing = "uniform" if protocol in ("sgp", "agp", "epidemic") else "metropolis-hastings"
    topology = "random" if protocol == "epidemic" else "complete"
    return SPEC.format(steps=steps, protocol=name, mixing=mixing, topology=topology)


def measured(protocol: str, attack: str, given: argparse.Namespace) -> dict[str, Any]:
    """One cell."""
    folder = Path(tempfile.mkdtemp(prefix="covey-peer-attacks-"))
    try:
        (folder / "run.toml").write_text(specification(protocol, given.steps, given.adversaries))
        attacks = [] if attack == NONE else [Attack(attack, given.adversaries, ATTACKS[attack])]
        outcome = simulate(gossip_plan(folder / "run.toml", given.nodes, data_dir=folder / "out", attacks=attacks))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    distances = [peer.distance for peer in outcome.peers if peer.distance is not None]
    accuracy, named = outcome.metrics.get("accuracy", 0.0), [each.who.node for each in outcome.mass.named]
    return {"protocol": protocol, "attack": attack, "accuracy": accuracy, "spread": max(distances), "named": named}


def table(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The cells as Markdown."""
    by_protocol: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in cells:
        by_protocol.setdefault(cell["protocol"], {})[cell["attack"]] = cell
    columns = [attack for attack in ATTACKS if any(attack in row for row in by_protocol.values())]
    lines = [f"| protocol | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for protocol, row in by_protocol.items():
        lines.append(f"| `{protocol}` | {' | '.join(_cell(row.get(column), row.get(NONE)) for column in columns)} |")
    return lines


def _cell(cell: dict[str, Any] | None, without: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    text = f"{cell['accuracy']:.3f} ({cell['spread']:.2g})"
    holds = without is not None and cell["accuracy"] >= without["accuracy"] - HOLDS
    named = f", named: {len(cell['named'])}" if cell["named"] else ""
    return (f"**{text}**" if holds else text) + named


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; each cell is printed as it is done."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peer_attacks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, default=13)
    parser.add_argument("--adversaries", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--page", type=Path, metavar="FILE", help="also replace the table of this page")
    given = parser.parse_args(arguments)
    cells = []
    for protocol in given.protocols:
        for attack in given.attacks:
            if attack == "lying-mass" and protocol not in ("sgp", "agp"):
                continue  # where the receiver weighs, mass says nothing
            cells.append(measured(protocol, attack, given))
            print(json.dumps(cells[-1]), flush=True)
    lines = [f"{given.nodes} nodes, {given.adversaries} of them adversaries, {given.steps} steps.", "", *table(cells)]
    print("\n".join(["", *lines]))
    if given.page:
        update(given.page, PART, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
