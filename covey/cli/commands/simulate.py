"""`covey simulate`: a whole federation in one process, for experiments."""

from __future__ import annotations

import functools
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.commands.gossip.network import given_of, network_options
from covey.cli.commands.gossip.simulated import run_simulation
from covey.cli.framework.attacks import attacks_of
from covey.cli.framework.command import INTERRUPTED, Command, Failure, print_json
from covey.cli.framework.fields import ROUND_FIELDS, RUN_FIELDS
from covey.cli.framework.options import EXISTING_FILE, FOLDER, json_option, named_paths
from covey.errors import SpecError

if TYPE_CHECKING:
    from covey.client.experiments.gossip import Network
    from covey.client.experiments.simulated import Simulated
    from covey.simulation.plan import Plan
    from covey.spec import RunSpec

INTERRUPTED_REASON = "interrupted"
"""Why a run stopped after Ctrl-C, in its record."""
ENGINE = "Who trains: processes of this machine, or a Ray cluster (modes rounds and async)."
SIMULATE_FIELDS = (
    "data_dir",
    "nodes",
    "attacks",
    "seconds",
    f"run ({', '.join(RUN_FIELDS)})",
    f"rounds (a list: {', '.join(ROUND_FIELDS)})",
    "in mode gossip: as covey gossip simulate",
)


@click.command(
    cls=Command,
    examples=(
        "covey simulate digits.toml --nodes 100",
        "covey simulate digits.toml --nodes 25 --attack alie=5 --attack-option alie.z=1.5 --data-dir ~/alie",
        "covey simulate digits.toml --nodes 9 --attack sign-flip=2 --attack nan=1 --json",
        "covey simulate mnist.toml --nodes 31 --path images=/srv/mnist",
        "covey simulate digits.toml --nodes 9 --events ./events && covey run debug ./events/RUN.jsonl",
        "covey simulate digits.toml --nodes 500 --engine ray --ray-address head:6379 --data-dir /shared/digits",
        "covey simulate gossip.toml --nodes 8 --loss 0.2 --delay 0.5 --slow n3=0.1 --churn 0.05",
    ),
    json_fields=SIMULATE_FIELDS,
)
@click.argument("spec", metavar="SPEC.toml", type=EXISTING_FILE)
@click.option("--nodes", required=True, type=click.IntRange(1, 100_000), help="How many nodes.")
@click.option(
    "--processes", type=click.IntRange(1, 1024), help="How many train at a time [default: one for each core]."
)
@click.option("--attack", "attacks", multiple=True, metavar="NAME=COUNT", help="The last COUNT nodes are adversaries.")
@click.option("--attack-option", "options", multiple=True, metavar="NAME.KEY=VALUE", help="An option of an attack.")
@click.option("--path", "paths", multiple=True, metavar="NAME=PATH", help="Where the task finds the nodes' data.")
@click.option("--staleness", metavar="normal:MEAN,SD", help="Mode async: how many versions old updates are.")
@functools.partial(network_options, where="Mode gossip: ")
@click.option("--device", default="cpu", show_default=True, help="What to train on: cpu, cuda or cuda:N.")
@click.option("--engine", type=click.Choice(["processes", "ray"]), default="processes", show_default=True, help=ENGINE)
@click.option("--ray-address", metavar="HOST:PORT|auto", help="A cluster's head [default: Ray on this machine].")
@click.option("--data-dir", type=FOLDER, help="The folder for the record [default: a new temporary one].")
@click.option("--events", type=FOLDER, help="Also log what the run's machine is told there, for `covey run debug`.")
@json_option
def simulate(
    spec: Path,
    nodes: int,
    processes: int | None,
    attacks: tuple[str, ...],
    options: tuple[str, ...],
    paths: tuple[str, ...],
    staleness: str | None,
    network: Network,
    device: str,
    engine: str,
    ray_address: str | None,
    data_dir: Path | None,
    events: Path | None,
    as_json: bool,
) -> None:
    """Run SPEC.toml with many nodes in one process.

    The coordinator's and the nodes' own code runs, with messages handed over in memory and a few processes that train
    for all. In mode rounds the final model is that of a real federation of as many nodes, bit for bit. A run of mode
    gossip is simulated as covey gossip simulate does it, with the same options and output.
    """
    from covey.client.experiments.simulated import cluster_of, new_folder
    from covey.client.models.initial import given_file
    from covey.client.specification import parsed, written_keys
    from covey.simulation.arrival_order import parse_staleness
    from covey.simulation.plan import Plan

    run = parsed(spec, later=True)
    _require_read(run, staleness, events, network, engine)
    cluster = cluster_of(engine, ray_address)
    machines: dict[str, Any] = {"processes": processes, "paths": named_paths(paths), "device": device}
    adversaries = attacks_of(attacks, options)
    if not run.facts.coordinated:
        from covey.client.experiments.gossip import gossip_plan

        gossip = gossip_plan(spec, nodes, network=network, data_dir=data_dir, attacks=adversaries, **machines)
        run_simulation(gossip, as_json=as_json)
        return
    given = given_file(run, spec.parent)
    plan = Plan(
        spec=run,
        nodes=nodes,
        folder=data_dir.absolute() if data_dir is not None else new_folder(),
        attacks=adversaries,
        staleness=parse_staleness(staleness) if staleness else None,
        events=events.absolute() if events is not None else None,
        written=written_keys(spec),
        model=given.path if given is not None else None,
        ray=cluster,
        told=lambda note: click.echo(note, err=True),
        begins=announced,
        **machines,
    )
    outcome = _simulated(plan)
    if as_json:
        print_json(_fields(plan, outcome))
    else:
        _print(plan.folder, outcome)
    if outcome.run.state != "completed":
        if outcome.run.reason == INTERRUPTED_REASON:
            click.get_current_context().exit(INTERRUPTED)
        raise Failure(f"run {outcome.run.run} is {outcome.run.state}: {outcome.run.reason}")


def _require_read(run: RunSpec, staleness: str | None, events: Path | None, network: Network, engine: str) -> None:
    """Refuse options that nothing reads in a run of its mode. Raises SpecError."""
    if run.facts.coordinated:
        why = "models go through the coordinator: there is no network between nodes to disturb"
        unread = dict.fromkeys(given_of(network), f"only of mode gossip; {why}")
    else:
        from covey.client.experiments.gossip import unread_options

        unread = unread_options(staleness=staleness, events=events, engine=engine)
    if unread:
        texts = [f"{option}: {text} (the run's mode is {run.mode})" for option, text in unread.items()]
        raise SpecError("; ".join(texts))


def _simulated(plan: Plan) -> Simulated:
    from covey.cli.views.simulation_bars import view
    from covey.client.experiments.simulated import run_plan
    from covey.telemetry import configure_logging

    configure_logging("console", "error")
    with view() as shown:
        return run_plan(plan, shown.update)


def announced(plan: Plan) -> None:
    """Say what begins, and where its record is."""
    click.echo(f"{plan.nodes} virtual nodes; the record is in {plan.folder}", err=True)
    for attack in plan.attacks:
        click.echo(
            click.style(
                f"DRILL: the attack {attack.name} by {attack.count} of {plan.nodes} nodes", fg="red", bold=True
            ),
            err=True,
        )


def _fields(plan: Plan, outcome: Simulated) -> Mapping[str, Any]:
    from covey.cli.framework.fields import CONTRIBUTION_FIELDS, plain, plain_list

    return {
        "data_dir": str(plan.folder),
        "nodes": plan.nodes,
        "attacks": {attack.name: attack.count for attack in plan.attacks},
        "seconds": round(outcome.seconds, 3),
        "run": plain(outcome.run, RUN_FIELDS),
        "rounds": plain_list(outcome.rounds, ROUND_FIELDS),
        "contributions": plain_list(outcome.contributions, CONTRIBUTION_FIELDS),
    }


def _print(folder: Path, outcome: Simulated) -> None:
    from covey.cli.commands.demo import running_program
    from covey.cli.views import tables
    from covey.client.reading.figures import has_figures

    run = outcome.run
    done, whole, what = tables.done_of(run)
    rows: list[tuple[str, Any]] = [
        ("run", run.run),
        ("name", tables.safe_text(run.name)),
        ("state", tables.state_text(run.state)),
        ("reason", run.reason),
        ("progress", f"{done} of {whole} {what} in {tables.span(outcome.seconds)}"),
        ("model sha256", run.model_sha256),
        ("metrics", tables.metrics_line(run.metrics)),
        *tables.missing_rows(run.missing),
    ]
    answers: Counter[str] = Counter()
    for contribution in outcome.contributions:
        answers.update({name: getattr(contribution, name) for name in ("accepted", *tables.SHORT)})
    rows.append(("answers", ", ".join(f"{count} {name}" for name, count in answers.items() if count)))
    warnings = "\n".join(tables.shortfalls(run, outcome.contributions))
    tables.show(tables.pairs(rows), tables.safe_lines(warnings))
    data_dir, covey = f"--data-dir {shlex.quote(str(folder))}", running_program()
    where = f"{run.run} {data_dir}"
    last = f"statistics {where}" if has_figures(run) else f"export {run.run} --to {run.name}.safetensors {data_dir}"
    click.echo(
        f"""\

The record can be read:
  {covey} run show {where}
  {covey} round list {where}
  {covey} round show {run.run} 1 {data_dir}
  {covey} run {last}

To delete all of it: rm -r {shlex.quote(str(folder))}"""
    )
