"""`covey gossip simulate`: many nodes of a gossip run in one process."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.commands.gossip.network import network_options
from covey.cli.framework.attacks import attacks_of
from covey.cli.framework.command import Command, Failure, print_json
from covey.cli.framework.options import EXISTING_FILE, FOLDER, json_option, named_paths

if TYPE_CHECKING:
    from covey.client.experiments.gossip import GossipOutcome, GossipPlan, Network
    from covey.spec import GossipSpec

MASS_FIELDS = ("exact", "live", "in_flight", "minted", "lost", "uncertain", "findings", "weighs", "delivered")
PEER_FIELDS = (
    "node",
    "reason",
    "steps",
    "weight",
    "loss",
    "distance",
    "metrics",
    "trained",
    "blocked",
    "batches",
    "model_sha256",
)
SIMULATE_FIELDS = (
    "data_dir",
    "nodes",
    "seconds",
    "virtual_time",
    "messages",
    "lost_messages",
    "model_bytes",
    "model_sha256",
    "metrics",
    "attacks",
    "named (who gave away more mass than it can have had)",
    f"mass ({', '.join(MASS_FIELDS)})",
    f"peers (a list: {', '.join(PEER_FIELDS)})",
)


@click.command(
    cls=Command,
    examples=(
        "covey gossip simulate gossip.toml --nodes 8",
        "covey gossip simulate gossip.toml --nodes 8 --loss 0.2 --delay 0.5",
        "covey gossip simulate gossip.toml --nodes 16 --slow n03=0.1 --dies n05=10 --leaves n07=20 --json",
        "covey gossip simulate gossip.toml --nodes 8 --dies n1=5 --returns n1=9 --joins n7=12",
        "covey gossip simulate gossip.toml --nodes 4 --partition n0,n1/n2,n3=5-12 --churn 0.05",
    ),
    json_fields=SIMULATE_FIELDS,
)
@click.argument("spec", metavar="SPEC.toml", type=EXISTING_FILE)
@click.option("--nodes", required=True, type=click.IntRange(1, 100_000), help="How many nodes.")
@network_options
@click.option(
    "--processes", type=click.IntRange(1, 1024), help="How many train at a time [default: one for each core]."
)
@click.option("--path", "paths", multiple=True, metavar="NAME=PATH", help="Where the task finds the nodes' data.")
@click.option("--device", default="cpu", show_default=True, help="What to train on: cpu, cuda or cuda:N.")
@click.option("--attack", "attacks", multiple=True, metavar="NAME=COUNT", help="The last COUNT nodes are adversaries.")
@click.option("--attack-option", "options", multiple=True, metavar="NAME.KEY=VALUE", help="An option of an attack.")
@click.option("--data-dir", type=FOLDER, help="The folder for the consensus model [default: a new temporary one].")
@json_option
def simulate(
    spec: Path,
    nodes: int,
    network: Network,
    processes: int | None,
    paths: tuple[str, ...],
    device: str,
    attacks: tuple[str, ...],
    options: tuple[str, ...],
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Run SPEC.toml (mode = "gossip") with many nodes in one process.

    Each node has its own machine, model and account of mass; a few processes train for all. Time is virtual: a step of
    training takes 1, so results do not depend on this machine's load. In lock step (overlap = 0) lost and late
    messages cost time, and change not one bit of the models.
    """
    from covey.client.experiments.gossip import gossip_plan

    machines: dict[str, Any] = {"processes": processes, "paths": named_paths(paths), "device": device}
    adversaries = attacks_of(attacks, options)
    plan = gossip_plan(spec, nodes, network=network, data_dir=data_dir, attacks=adversaries, **machines)
    run_simulation(plan, as_json=as_json)


def run_simulation(plan: GossipPlan, *, as_json: bool) -> None:
    """Simulate a gossip run, and print what comes of it: also of `covey simulate` with such a specification."""
    for attack in plan.attacks:
        text = (
            f"DRILL: the attack {attack.name} by {attack.count} of {plan.nodes} nodes; figures are of the honest ones"
        )
        click.secho(text, fg="red", bold=True, err=True)
    outcome = _simulated(plan)
    if as_json:
        print_json(_fields(plan, outcome))
    else:
        _print(plan, outcome)
    if not outcome.mass.is_exact and not plan.attacks:
        raise Failure("the accounts of mass contradict each other: " + "; ".join(outcome.mass.findings))


def say_notes(spec: GossipSpec) -> None:
    """Tell what one should know who starts this run; why it cannot be made, its start says."""
    from covey.errors import CoveyError
    from covey.gossip.protocols.runs import notes_of

    with contextlib.suppress(CoveyError):
        for note in notes_of(spec):
            click.echo(f"note: {note}", err=True)


def _simulated(plan: GossipPlan) -> GossipOutcome:
    from covey.cli.views.simulation_bars import view
    from covey.client.experiments.gossip import simulate as played
    from covey.telemetry import configure_logging

    configure_logging("console", "error")
    say_notes(plan.spec)
    click.echo(f"{plan.nodes} virtual nodes; what comes of it will be in {plan.folder}", err=True)
    with view() as shown:
        return played(plan, shown.update)


def _fields(plan: GossipPlan, outcome: GossipOutcome) -> Mapping[str, Any]:
    mass = outcome.mass
    return {
        "data_dir": str(plan.folder),
        "nodes": plan.nodes,
        "seconds": round(outcome.seconds, 3),
        **{name: getattr(outcome, name) for name in SIMULATE_FIELDS[3:9]},
        "attacks": {attack.name: attack.count for attack in plan.attacks},
        "named": [each.who.node for each in mass.named],
        "mass": {"exact": mass.is_exact, **{name: getattr(mass, name) for name in MASS_FIELDS[1:]}},
        "peers": [{name: getattr(peer, name) for name in PEER_FIELDS} for peer in outcome.peers],
    }


def _print(plan: GossipPlan, outcome: GossipOutcome) -> None:
    from covey.cli.views import gossip_tables, tables
    from covey.client.experiments.gossip import MEAN

    tables.show(gossip_tables.summary(outcome), gossip_tables.peers(outcome))
    mean = shlex.quote(str(plan.folder / MEAN))
    what = f"The mean of the final models, weighted by their mass: {mean}"
    if not outcome.model_sha256:
        what = "Nodes keep models of their own: there is no consensus model"
    click.echo(
        f"""\

{what}
To delete all of it: rm -r {shlex.quote(str(plan.folder))}"""
    )
