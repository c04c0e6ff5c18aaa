"""`covey node`: be a node (join, check, start, logs, leave), and look after nodes (list, show, evict)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.commands.logs.node_logs import node_logs
from covey.cli.framework.command import Failure, Group, print_json
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import EVENT_FIELDS, NODE_FIELDS, plain, plain_list
from covey.cli.framework.options import EXISTING_FILE, FOLDER, Address, json_option, log_options, target_options
from covey.cli.framework.pages import DEFAULT_PAGE, note_more, page_options
from covey.cli.framework.records import Form, list_options, print_records

if TYPE_CHECKING:
    from covey.client.target import Target
    from covey.client.values import Node
    from covey.node.operator.adversary import Drill
    from covey.telemetry import LogFormat

IDENTITY_FIELDS = ("node", "federation", "server", "data_dir")
TOKEN_PREFIX, MAX_TOKEN_CHARS = "covey1.", 16_384
"""As `covey.wire.identities.tokens` has them; importing that would slow every command down."""
data_dir_option = click.option("--data-dir", type=FOLDER, required=True, help="This node's own folder.")
device_option = click.option(
    "--device", default="auto", show_default=True, help="What trains: auto, cpu, cuda or cuda:N."
)


@click.group(
    cls=Group,
    examples=(
        "covey node join TOKEN --data-dir /srv/node",
        "covey node start --data-dir /srv/node",
        "covey node list --data-dir /srv/covey",
    ),
)
def node() -> None:
    """Be a node, or look after nodes."""


def token_text(given: str) -> str:
    """A join token as it was given: itself, in a file, or on standard input; in UTF-16, too, as Windows writes it."""
    if given == "-":
        return _text_of(sys.stdin.buffer.read(4 * MAX_TOKEN_CHARS))
    if given.lstrip().startswith(TOKEN_PREFIX):
        return given
    try:
        with open(given, "rb") as file:
            return _text_of(file.read(4 * MAX_TOKEN_CHARS))
    except OSError:
        return given  # which is said to be no token


def _text_of(raw: bytes) -> str:
    from covey.texts import decoded

    try:
        return decoded(raw)
    except UnicodeDecodeError:
        return raw.decode(errors="replace")


@node.command(
    examples=(
        "covey node join TOKEN --data-dir /srv/node",
        "covey node join - --data-dir /srv/node < token.txt",
        "covey node join token.txt --data-dir /srv/node",
    ),
    json_fields=IDENTITY_FIELDS,
)
@click.argument("token")
@data_dir_option
@json_option
def join(token: str, data_dir: Path, as_json: bool) -> None:
    """Make keys here and have them certified with TOKEN; the keys never leave this machine.

    TOKEN is the token itself, a file that holds it, or - for standard input: what is given on the command line can be
    seen by every user of this machine. If the answer is lost on the way, the same command can be given again.
    """
    from covey.node.membership.enrolment import join as join_federation

    identity = join_federation(token_text(token), data_dir)
    if as_json:
        values = (identity.name, identity.federation, identity.server, str(data_dir))
        print_json(dict(zip(IDENTITY_FIELDS, values, strict=True)))
        return
    click.echo(f"joined federation {identity.federation} as {identity.name}")
    click.echo(f"what runs may ask of this node is in {data_dir / 'node.toml'}")
    click.echo(f"start it with: covey node start --data-dir {data_dir}")


@node.command(
    examples=(
        "covey node check --data-dir /srv/node",
        "covey node check --spec digits.toml --data-dir /srv/node",
        "covey node check --task digits --data-dir /srv/node --json",
    ),
    json_fields=("(a list)", "what", "ok", "text", "skipped"),
)
@data_dir_option
@device_option
@click.option("--server", type=Address(), help="The coordinator's address, where it has changed.")
@click.option("--spec", type=EXISTING_FILE, help="The run specification that the node is to take part in.")
@click.option("--task", help="One task, with its default options.")
@json_option
def check(data_dir: Path, device: str, server: str | None, spec: Path | None, task: str | None, as_json: bool) -> None:
    """See whether this node can take part: keys, policy, coordinator, and one batch of training.

    Without --spec and --task every task that the policy allows is tried. Exit code 1 if anything fails; tasks that come
    with Covey and have no data here are skipped, as long as another one works.
    """
    from covey.node.operator.check import run_check
    from covey.node.operator.config import NodeConfig

    if spec is not None and task is not None:
        raise click.UsageError("give --spec or --task, not both")
    wanted = _spec_to_check(spec, task)
    findings = run_check(NodeConfig.load(data_dir, device=device, server=server), wanted)
    if as_json:
        print_json([{"what": f.what, "ok": f.ok, "text": f.text, "skipped": f.skipped} for f in findings])
    else:
        for finding in findings:
            mark = "ok  " if finding.ok else "skip" if finding.skipped else "FAIL"
            click.echo(f"{mark}  {finding.what}: {finding.text}")
    if not all(f.ok or f.skipped for f in findings) or not any(f.ok and f.what.startswith("task ") for f in findings):
        raise Failure("this node cannot take part yet; see above")


def _spec_to_check(spec: Path | None, task: str | None) -> Any:
    from covey.client.specification import parsed
    from covey.gossip.protocols.runs import require_possible
    from covey.spec import GossipSpec, RoundsSpec, TaskSection

    if spec is not None:
        wanted = parsed(spec)
        if isinstance(wanted, GossipSpec):
            require_possible(wanted, allow_path=True)  # whether the operator allows it is checked with the rest
        return wanted
    return RoundsSpec(name="check", task=TaskSection(name=task)) if task else None


@node.command(
    examples=(
        "covey node start --data-dir /srv/node",
        "covey node start --data-dir /srv/node --device cuda:1",
        "covey node start --data-dir /srv/node --join /etc/covey/join.token",
        "covey node start --data-dir /srv/node --metrics 127.0.0.1:9465",
        "covey node start --data-dir /srv/node --peer-listen 0.0.0.0:7410 --peer-advertise a.example.org:7410",
        "covey node start --data-dir /srv/node --attack scaled --attack-option factor=-10",
        "covey node start --data-dir /srv/a --attack alie --attack-group /srv/drill --attack-members a,b,c",
    )
)
@data_dir_option
@device_option
@click.option("--server", type=Address(), help="The coordinator's address, where it has changed.")
@click.option(
    "--join",
    "token_source",
    type=click.Path(path_type=Path),
    envvar="COVEY_JOIN",
    help="At the first start: a file with a join token.",
)
@click.option(
    "--authority",
    type=EXISTING_FILE,
    envvar="COVEY_AUTHORITY",
    help="With --join: use tokens of this authority only (its certificate, PEM).",
)
@click.option("--metrics", type=Address(), help="Where Prometheus may scrape: no TLS on loopback, else mutual TLS.")
@click.option("--peer-listen", type=Address(), help="For gossip runs: where other nodes call this one.")
@click.option("--peer-advertise", type=Address(), help="By which address, where that is another one.")
@click.option("--peer-relay", type=Address(), help="Instead: the relay at which this node waits for others.")
@click.option("--attack", help="DRILL: send the updates of this attack; see covey plugins. It is put on record.")
@click.option("--attack-option", "attack_options", multiple=True, metavar="KEY=VALUE", help="An option of the attack.")
@click.option("--attack-group", type=FOLDER, help="Folder on this machine that a group of adversaries shares.")
@click.option("--attack-members", metavar="NODE,NODE...", help="The group's nodes, this one among them.")
@log_options
@click.pass_context
def start(
    ctx: click.Context, /, data_dir: Path, token_source: Path | None, authority: Path | None, **options: Any
) -> None:
    """Run the node until SIGTERM or Ctrl-C. It reconnects, and finishes what was in progress.

    With --join a machine that has not joined yet does so first, and waits for its coordinator if it must.

    With --attack it is an adversary, for a drill: coordinator and log say so, everywhere.
    """
    if token_source is not None:
        _join_when_new(data_dir, token_source, authority, options["log_format"], options["log_level"])
    if not (data_dir / "identity").is_dir():
        raise Failure(f"{data_dir} has not joined a federation; first: covey node join TOKEN --data-dir {data_dir}")
    from covey.cli.framework.processes import tame_malloc
    from covey.telemetry import import_without_rich

    import_without_rich()
    from covey.node.daemon import run_node
    from covey.node.operator.config import NodeConfig

    tame_malloc()
    drill = _adversary(data_dir, *(options.pop(name) for name in ("attack", *_GROUP)))
    ctx.exit(run_node(NodeConfig.load(data_dir, drill=drill, **options)))


def _join_when_new(data_dir: Path, source: Path, authority: Path | None, log_format: LogFormat, log_level: str) -> None:
    from covey.cli.framework.processes import interrupted_by_signals
    from covey.node.membership.joining import join_when_new
    from covey.telemetry import configure_logging

    configure_logging(log_format, log_level)
    with interrupted_by_signals():  # it may wait long, and as a container's first process it has no default handlers
        join_when_new(data_dir, source, authority)


node.add_command(node_logs)

_GROUP = ("attack_options", "attack_group", "attack_members")


def _adversary(
    data_dir: Path, attack: str | None, pairs: tuple[str, ...], group: Path | None, members: str | None
) -> Drill | None:
    """The drill that the options ask for, checked and announced."""
    from covey.node.operator.adversary import Drill, check_drill, parse_options
    from covey.wire.identities.identity import Identity

    if attack is None:
        if pairs or group or members:
            raise click.UsageError("--attack-option, --attack-group and --attack-members need --attack")
        return None
    names = tuple(sorted(name.strip() for name in (members or "").split(",") if name.strip()))
    drill = Drill(attack, parse_options(pairs), group.resolve() if group else None, names)
    check_drill(drill, Identity.load(data_dir / "identity").name)
    click.secho(f"DRILL: this node is an adversary; {drill.describe()}", fg="red", bold=True, err=True)
    return drill


@node.command(
    examples=("covey node leave --data-dir /srv/node",), json_fields=("node", "federation", "certificate_expires_at")
)
@data_dir_option
@json_option
def leave(data_dir: Path, as_json: bool) -> None:
    """Delete this node's keys, so that it cannot connect any more; its data and settings stay.

    Refused while the node runs: stop it first.
    """
    from covey.node.membership.enrolment import leave as leave_federation

    identity = leave_federation(data_dir)
    if as_json:
        expires_at = identity.expires_at
        print_json({"node": identity.name, "federation": identity.federation, "certificate_expires_at": expires_at})
        return
    click.echo(f"the keys of {identity.name} are deleted")
    click.echo(f"its coordinator can strike it off with: covey node evict {identity.name}")


@node.command(
    "list",
    examples=("covey node list --data-dir /srv/covey", "covey node list --json", "covey node list --all"),
    json_fields=("(a list)", *NODE_FIELDS),
)
@click.option("--after", default="", metavar="NODE", help="Only nodes whose names come after this one.")
@page_options("nodes")
@list_options
@target_options
def list_nodes(after: str, limit: int | None, whole: bool, form: Form, target: Target) -> None:
    """List a coordinator's nodes by name. Also works while it is stopped."""
    size = None if whole else limit or DEFAULT_PAGE
    with connected(target) as connection:
        nodes = connection.every_node(None if size is None else size + 1, after=after)
        page = islice(nodes, size)
        last = _printed(page, form) if form else _listed(page)
        more = next(nodes, None) is not None
    if more:
        note_more(f"the first {size} nodes are shown", f"--after {last}")


PAGE = 500
"""Lines of a table of nodes; a longer list is several tables."""


def _listed(nodes: Iterator[Node]) -> str:
    """Show nodes, a table at a time; the name of the last one."""
    from covey.cli.views import tables

    last, page = "", list(islice(nodes, PAGE))
    tables.show(tables.node_table(page))
    while page:
        last, page = page[-1].node, list(islice(nodes, PAGE))
        if page:
            tables.show(tables.node_table(page))
    return last


def _printed(nodes: Iterator[Node], form: Form) -> str:
    last = ""

    def fields() -> Iterator[dict[str, Any]]:
        nonlocal last
        for node in nodes:
            last = node.node
            yield plain(node, NODE_FIELDS)

    print_records(fields(), form)
    return last


@node.command(
    examples=("covey node show hospital-a --data-dir /srv/covey",),
    json_fields=(*NODE_FIELDS, f"events (newest first: {', '.join(EVENT_FIELDS)})"),
)
@click.argument("name", metavar="NODE")
@json_option
@target_options
def show(name: str, as_json: bool, target: Target) -> None:
    """Show one NODE and what happened to it. Also works while the coordinator is stopped."""
    with connected(target) as connection:
        detail = connection.node(name)
    if as_json:
        print_json({**plain(detail.node, NODE_FIELDS), "events": plain_list(detail.events, EVENT_FIELDS)})
        return
    from covey.cli.views import tables

    tables.show(*tables.node_details(detail))


@node.command(
    examples=(
        "covey node evict hospital-a --data-dir /srv/covey",
        "covey node evict hospital-a --study brain --data-dir /srv/covey",
        "covey node evict hospital-a --yes --json",
    ),
    json_fields=NODE_FIELDS,
)
@click.argument("name", metavar="NODE")
@click.option("--study", default="", metavar="STUDY", help="Only out of this study.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@target_options
def evict(name: str, study: str, yes: bool, as_json: bool, target: Target) -> None:
    """Shut NODE out, at once and for good: this cannot be taken back.

    Of the federation: its name is not given again. Of a study: covey study add does not bring it back into that.
    """
    with connected(target) as connection:
        if not yes:
            where = f"the study {study}" if study else "the federation"
            click.confirm(f"shut {name} out of {where}, for good?", abort=True, err=True)
        evicted = connection.evict(name, study=study)
    if as_json:
        print_json(plain(evicted, NODE_FIELDS))
    else:
        state = f"works for study {study} no more" if study else f"is {evicted.state}"
        click.echo(f"node {evicted.node} {state}")
