"""`covey gossip`: learning without a server in the path: take part as a node, or simulate many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from covey.cli.commands.gossip.export import export
from covey.cli.commands.gossip.records import audit, peers
from covey.cli.commands.gossip.simulated import say_notes, simulate
from covey.cli.commands.gossip.status import status
from covey.cli.commands.gossip.trace import trace
from covey.cli.framework.command import Failure, Group, print_json
from covey.cli.framework.options import EXISTING_FILE, FOLDER, Address, json_option, log_options

if TYPE_CHECKING:
    from covey.node.operator.adversary import Drill
    from covey.telemetry import LogFormat


@click.group(
    cls=Group,
    examples=(
        "covey demo --gossip",
        "covey gossip simulate gossip.toml --nodes 8",
        "covey ca init --dir ca && covey ca issue n0 --dir ca --to /srv/node/identity",
        "covey gossip start gossip.toml --data-dir /srv/node --peers peers.toml --listen 0.0.0.0:7410",
        "covey gossip status --data-dir /srv/node",
    ),
)
def gossip() -> None:
    """Learn by exchanging models between peers.

    Without a coordinator: covey ca init and covey ca issue make the nodes' identities and print what belongs into the
    peers file; then each organisation runs covey gossip start. Through a coordinator: covey node start --peer-listen on
    each machine, and covey run submit. The other commands read the records of nodes, also while those run.
    """


@gossip.command(
    examples=(
        "covey gossip start gossip.toml --data-dir /srv/node --peers peers.toml --listen 0.0.0.0:7410",
        "covey gossip start gossip.toml --data-dir /srv/node --peers peers.toml",
        "covey gossip start gossip.toml --data-dir /srv/node --peers peers.toml --relay relay.example.org:443",
        "covey gossip start gossip.toml --data-dir /srv/node --peers peers.toml --durability power --stay",
    )
)
@click.argument("spec", metavar="SPEC.toml", type=EXISTING_FILE)
@click.option("--data-dir", type=FOLDER, required=True, help="This node's own folder; its identity is in it.")
@click.option(
    "--peers",
    type=EXISTING_FILE,
    required=True,
    help="Who takes part: the peers file, the same for all; covey ca issue prints each node's entry.",
)
@click.option("--listen", type=Address(), default=None, help="Where peers call this node; without it, it only calls.")
@click.option("--relay", type=Address(), default=None, help="The relay through which peers call this node.")
@click.option(
    "--durability",
    type=click.Choice(["process", "power"]),
    help="What an exchange survives: the end of the process, or a power cut (each exchange waits for the disk) "
    "[default: [peers] durability in node.toml, else process].",
)
@click.option("--rejoin", is_flag=True, help="Take part as a new incarnation where the one before was evicted.")
@click.option("--stay", is_flag=True, help="Answer peers on when all steps are done, until it is stopped.")
@click.option("--metrics", type=Address(), help="Where Prometheus may scrape: no TLS on loopback, else mutual TLS.")
@click.option("--attack", help="DRILL: send this attack: lying-mass, or see covey plugins. It is put on record.")
@click.option("--attack-option", "attack_options", multiple=True, metavar="KEY=VALUE", help="An option of the attack.")
@click.option("--device", default="auto", show_default=True, help="What trains: auto, cpu, cuda or cuda:N.")
@log_options
@click.pass_context
def start(
    ctx: click.Context,
    /,
    spec: Path,
    data_dir: Path,
    peers: Path,
    listen: str | None,
    relay: str | None,
    durability: Literal["process", "power"] | None,
    rejoin: bool,
    stay: bool,
    metrics: str | None,
    attack: str | None,
    attack_options: tuple[str, ...],
    device: str,
    log_format: LogFormat,
    log_level: str,
) -> None:
    """Take part in the run SPEC.toml (mode = "gossip") until all its steps are done. There is no coordinator.

    The node's identity is in DATA_DIR/identity (covey ca issue). It begins when [gossip] min_nodes nodes are there,
    this one included. Stopped or killed, and started again, it goes on where it was, with all its mass.
    """
    if not (data_dir / "identity").is_dir():
        raise Failure(f"{data_dir} has no identity; first: covey ca issue NAME --dir CA_DIR --to {data_dir}/identity")
    from covey.cli.framework.processes import tame_malloc
    from covey.telemetry import import_without_rich

    import_without_rich()
    from covey.client.models.initial import by_digest
    from covey.client.specification import gossip_spec
    from covey.node.gossip_daemon import GossipConfig, run_gossip_node
    from covey.node.operator.config import NodeConfig

    tame_malloc()
    logs: dict[str, Any] = {"log_format": log_format, "log_level": log_level}
    drill = _adversary(attack, attack_options)
    node = NodeConfig.load(data_dir, device=device, drill=drill, metrics=metrics, **logs)
    run, model = by_digest(gossip_spec(spec), spec.parent)
    say_notes(run)
    durable = durability or node.peers.durability
    config = GossipConfig(node, run, peers, listen or "", durable, rejoin, stay, relay or "", model)
    ctx.exit(run_gossip_node(config))


def _adversary(attack: str | None, pairs: tuple[str, ...]) -> Drill | None:
    """The drill that the options ask for, checked and announced."""
    from covey.node.gossip.adversary import LYING_MASS, PeerAttack
    from covey.node.operator.adversary import Drill, check_attack, parse_options

    if attack is None:
        if pairs:
            raise click.UsageError("--attack-option needs --attack")
        return None
    drill = Drill(attack, parse_options(pairs))
    PeerAttack(drill.attack, drill.options)
    if attack != LYING_MASS:
        check_attack(drill)
    click.secho(f"DRILL: this node is an adversary among its peers: {attack}", fg="red", bold=True, err=True)
    return drill


@gossip.command(
    examples=("covey gossip leave --data-dir /srv/node", "covey gossip leave --data-dir /srv/node --take-back"),
    json_fields=(
        "run",
        "node",
        "incarnation",
        "running (whether its process says so)",
        "silent (peers that it may wait for)",
    ),
)
@click.option("--data-dir", type=FOLDER, required=True, help="The node's folder.")
@click.option("--run", help="The run's name (its id, through a coordinator), where the node has several.")
@click.option("--take-back", is_flag=True, help="Stay after all: the node has not run since it was asked.")
@json_option
def leave(data_dir: Path, run: str | None, take_back: bool, as_json: bool) -> None:
    """Ask this machine's node to hand over all its mass to a peer, and to leave the run for good.

    A peer that shows no sign of life, and to which a batch is on its way, may have it: the node hands over the rest,
    and ends once that peer has the batch, or is evicted.
    """
    from covey.client.gossip_nodes import read_node, silent_receivers
    from covey.node.gossip.folders import ask_to_leave, take_back_leave

    node = read_node(data_dir, run)
    if node.facts.ended:
        raise Failure(f"{node.facts.me} is not in the run any more: its part is {node.facts.ended}")
    if node.now is not None and node.now.phase == "lingering":
        text = f"{node.facts.me} has made all its steps, waits only until its peers have made theirs, and ends then"
        raise Failure(f"{text}; to end it sooner, stop its process: its model and its mass stay on record")
    if take_back and (node.now is not None or node.machine.is_leaving):
        seen = f"{node.facts.me} runs, or has run since it was asked"
        raise Failure(f"{seen}: a node that has seen that it is to leave hands its mass over, and goes")
    (take_back_leave if take_back else ask_to_leave)(data_dir, run)
    silent = silent_receivers(node)
    if as_json:
        me = {"node": node.facts.me.node, "incarnation": node.facts.me.number}
        names = [peer.node for peer in silent]
        print_json({"run": node.facts.name, **me, "running": node.now is not None, "silent": names})
        return
    if take_back:
        click.echo("the node goes on when it is started again")
        return
    later = "once it runs again (it does not now; until then --take-back undoes it)"
    when = "at its next step" if node.now is not None else later
    click.echo(f"the node hands its mass over {when}, and ends; covey gossip status shows when it has left")
    for peer in silent:
        click.echo(
            f"  not before {peer}, which shows no sign of life, has the batch on its way to it; if it does not come "
            f"back: covey ca evict {peer.node} --run {node.facts.name} --incarnation {peer.number}"
            " --peers FILE (at a coordinator: covey node evict)"
        )


for command in (status, peers, audit, export, trace, simulate):
    gossip.add_command(command)
