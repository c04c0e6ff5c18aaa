"""`covey coordinator`: start it, and operate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.framework.command import Command, Group, print_json
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import STATUS_FIELDS, plain, plain_list
from covey.cli.framework.options import (
    EXISTING_FOLDER,
    FOLDER,
    Address,
    Duration,
    Size,
    json_option,
    log_options,
    named_paths,
    target_of,
    target_options,
    where_options,
)
from covey.cli.framework.records import Form, list_options, print_records

if TYPE_CHECKING:
    from covey.client.target import Target
    from covey.client.values import Status, TokenInfo

ISSUE_S = 600.0
"""How long a token may take to be redeemed, where that happens at once."""
ADMIN_FIELDS = ("name", "role", "state", "enrolled_at", "certificate_expires_at")
BACKUP_FIELDS = ("folder", "bytes", "machine")
TOKEN_INFO_FIELDS = ("id", "node", "role", "state", "created_at", "expires_at", "uses", "uses_left")
TOKEN_FIELDS = ("token", "node", "expires_at", "uses")


@click.group(
    cls=Group,
    examples=("covey coordinator start --data-dir /srv/covey", "covey coordinator status --data-dir /srv/covey"),
)
def coordinator() -> None:
    """Start a coordinator, and operate it."""


@coordinator.command(
    examples=(
        "covey coordinator start --data-dir /srv/covey",
        "covey coordinator start --data-dir /srv/covey --listen 0.0.0.0:7400 --enrol-listen 0.0.0.0:7401 \\",
        "    --advertise covey.example.org:7400",
        "covey coordinator start --data-dir /srv/covey --listen 0.0.0.0:443 --enrol-listen 0.0.0.0:443 \\",
        "    --advertise covey.example.org:443",
        "COVEY_STORE=postgresql://covey@db/covey covey coordinator start --data-dir /srv/covey",
        "covey coordinator start --data-dir /srv/covey --artifacts s3://bucket/covey --quota 50GB",
        "covey coordinator start --data-dir /srv/covey --metrics 127.0.0.1:9464",
    )
)
@click.option("--data-dir", type=FOLDER, envvar="COVEY_HOME", required=True, help="Keys, model files, SQLite store.")
@click.option("--listen", type=Address(), default="127.0.0.1:7400", show_default=True, help="For nodes and admins.")
@click.option("--enrol-listen", type=Address(), default="127.0.0.1:7401", show_default=True, help="For join tokens.")
@click.option("--advertise", type=Address(), help="How nodes reach --listen, where that differs.")
@click.option("--advertise-enrol", type=Address(), help="How nodes reach --enrol-listen [default: same host].")
@click.option("--store", "store_url", envvar="COVEY_STORE", help="postgresql://... [default: SQLite in --data-dir].")
@click.option(
    "--artifacts", envvar="COVEY_ARTIFACTS", metavar="URL", help="Where models last: s3://BUCKET/PREFIX, file:///PATH."
)
@click.option("--quota", type=Size(), help="At most so much disk for model and update files, as 20GB.")
@click.option(
    "--device", default="cpu", show_default=True, help="What aggregates and evaluates: cpu, cuda, cuda:N, auto."
)
@click.option("--metrics", type=Address(), help="Where Prometheus may scrape: no TLS on loopback, else mutual TLS.")
@click.option("--allow-paths", is_flag=True, help="Let runs name tasks installed here as package.module:Class.")
@click.option(
    "--stall", "stall_s", type=Duration(), default="15m", show_default=True, help="Longest step of its worker."
)
@click.option("--worker-memory", "worker_memory_bytes", type=Size(), help="Most memory of its worker, as 16GiB.")
@click.option("--worker-env", multiple=True, metavar="NAME", help="A variable that its worker may see; repeatable.")
@click.option("--path", "paths", multiple=True, metavar="NAME=PATH", help="Where tasks find central data.")
@click.option("--max-runs", type=click.IntRange(1, 16), default=4, show_default=True, help="How many runs at once.")
@log_options
@click.pass_context
def start(ctx: click.Context, /, quota: int | None, paths: tuple[str, ...], **options: Any) -> None:
    """Run the coordinator until SIGTERM or Ctrl-C. It resumes whatever was in progress."""
    from covey.cli.framework.processes import tame_malloc
    from covey.telemetry import import_without_rich

    import_without_rich()
    from covey.coordinator.config import CoordinatorConfig
    from covey.coordinator.daemon import run_coordinator

    tame_malloc()
    config = CoordinatorConfig(quota_bytes=quota, data_paths=named_paths(paths), **options)
    reached = config.advertise if config.has_one_port else _same_host(config.advertise, config.enrol_listen)
    ctx.exit(run_coordinator(replace(config, advertise_enrol=config.advertise_enrol or reached)))


def _same_host(advertise: str | None, enrol_listen: str) -> str | None:
    port = enrol_listen.rpartition(":")[2]
    return f"{advertise.rpartition(':')[0]}:{port}" if advertise and port != "0" else None


@coordinator.command(
    examples=("covey coordinator status --data-dir /srv/covey", "covey coordinator status --json"),
    json_fields=STATUS_FIELDS,
)
@json_option
@target_options
def status(as_json: bool, target: Target) -> None:
    """Show what the coordinator does now."""
    with connected(target) as connection:
        _show_status(connection.status(), as_json)


@coordinator.command(examples=("covey coordinator pause --data-dir /srv/covey",), json_fields=STATUS_FIELDS)
@json_option
@target_options
def pause(as_json: bool, target: Target) -> None:
    """Open no new round until `resume`; also after a restart."""
    with connected(target) as connection:
        _show_status(connection.pause(), as_json)


@coordinator.command(examples=("covey coordinator resume --data-dir /srv/covey",), json_fields=STATUS_FIELDS)
@json_option
@target_options
def resume(as_json: bool, target: Target) -> None:
    """Go on after `pause`."""
    with connected(target) as connection:
        _show_status(connection.resume(), as_json)


@coordinator.command(examples=("covey coordinator drain --data-dir /srv/covey",), json_fields=STATUS_FIELDS)
@json_option
@target_options
def drain(as_json: bool, target: Target) -> None:
    """Stop the coordinator once the rounds in progress are committed; its next start goes on from there.

    It says what the coordinator waits for; `covey coordinator status` says so until it has stopped.
    """
    with connected(target) as connection:
        _show_status(connection.drain(), as_json)


def _show_status(status: Status, as_json: bool) -> None:
    if as_json:
        print_json(plain(status, STATUS_FIELDS))
        return
    from covey.cli.views import tables

    shown = plain(status, STATUS_FIELDS) | {"active_runs": ", ".join(status.active_runs)}
    del shown["waits_for"]
    tables.show(tables.pairs([(name.replace("_", " "), value) for name, value in shown.items()]))
    if status.state == "draining":
        click.echo("it stops when these have ended:" if status.waits_for else "no round is open: it stops now")
        for text in status.waits_for:
            click.echo(f"  {tables.safe_text(text).plain}")


@coordinator.command(
    examples=("covey coordinator backup --to /backup/monday --data-dir /srv/covey",), json_fields=BACKUP_FIELDS
)
@click.option("--to", "folder", required=True, type=FOLDER, help="A new folder on the coordinator's machine.")
@json_option
@target_options
def backup(folder: Path, as_json: bool, target: Target) -> None:
    """Copy record, model files and keys while the coordinator runs; the record becomes SQLite, also from PostgreSQL.

    The folder then holds the keys of the whole federation: guard it as the coordinator's own data directory.
    """
    with connected(target) as connection:
        written = connection.backup(folder)
    if as_json:
        print_json(plain(written, BACKUP_FIELDS))
    else:
        click.echo(f"{written.bytes} bytes written to {written.folder} on {written.machine}, the coordinator's machine")


@coordinator.command(
    examples=(
        "covey coordinator restore /backup/monday --data-dir /srv/covey-2",
        "covey coordinator restore /backup/monday --data-dir /srv/covey-2 --store postgresql://covey@db/covey2",
    ),
    json_fields=("data_dir", "store"),
)
@click.argument("folder", type=EXISTING_FOLDER)
@click.option("--data-dir", type=FOLDER, envvar="COVEY_HOME", required=True, help="The new data directory: empty.")
@click.option("--store", "store_url", envvar="COVEY_STORE", help="An empty database [default: SQLite in --data-dir].")
@json_option
def restore(folder: Path, data_dir: Path, store_url: str | None, as_json: bool) -> None:
    """Make a data directory from the backup in FOLDER; then start a coordinator on it.

    Stop the old coordinator first: the two would have one identity, and nothing else keeps them apart.
    """
    from covey.cli.commands.store import without_secrets
    from covey.coordinator.backup.backup import restore as restore_backup
    from covey.coordinator.config import sqlite_url

    restore_backup(folder, data_dir, store_url)
    store = without_secrets(store_url or sqlite_url(data_dir))
    if as_json:
        print_json({"data_dir": str(data_dir), "store": store})
        return
    on = f" --store {store}" if store_url else ""
    click.echo(f"restored; go on with: covey coordinator start --data-dir {data_dir}{on}")


@coordinator.group(
    cls=Group,
    invoke_without_command=True,
    examples=(
        "covey coordinator token --node hospital-a --data-dir /srv/covey",
        "TOKEN=$(covey coordinator token --node hospital-a --expires 15m)",
        "covey coordinator token --node site --uses 8 --expires 7d --data-dir /srv/covey > join.token",
        "covey coordinator token list --data-dir /srv/covey",
        "covey coordinator token revoke hospital-a --data-dir /srv/covey",
    ),
    json_fields=TOKEN_FIELDS,
)
@click.option("--node", default="", help="The node's name [default: a random one]; with --uses NODE-1, NODE-2, ...")
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many nodes may enrol.")
@click.option("--expires", type=Duration(), default="1h", show_default=True, help="How long it can be used.")
@json_option
@where_options
@click.pass_context
def token(
    ctx: click.Context,
    /,
    node: str,
    uses: int,
    expires: float,
    as_json: bool,
    data_dir: Path | None,
    server: str | None,
    identity: Path | None,
) -> None:
    """Print a join token for `covey node join`, or for a file of `covey node start --join`."""
    if ctx.invoked_subcommand is not None:
        return
    with connected(target_of(data_dir, server, identity)) as connection:
        issued = connection.token(node, expires_s=expires, uses=uses)
    if as_json:
        print_json(plain(issued, TOKEN_FIELDS))
        return
    whom = f"node {issued.node}, once" if uses == 1 else f"{uses} nodes ({issued.node}-1, ...)"
    click.echo(f"for {whom}, until {_when(issued.expires_at)}; it is a secret", err=True)
    click.echo(issued.token)


@token.command(
    "list",
    examples=("covey coordinator token list --data-dir /srv/covey", "covey coordinator token list --json"),
    json_fields=("(a list)", *TOKEN_INFO_FIELDS),
)
@list_options
@target_options
def list_tokens(form: Form, target: Target) -> None:
    """List join tokens, the newest first: for whom each is, how many of its uses are left, and until when."""
    with connected(target) as connection:
        tokens = connection.tokens()
    _show_tokens(tokens, form)


@token.command(
    examples=(
        "covey coordinator token revoke hospital-a --data-dir /srv/covey",
        "covey coordinator token revoke 3f9a01c2d4e5 --json",
    ),
    json_fields=("(a list)", *TOKEN_INFO_FIELDS),
)
@click.argument("token_or_name", metavar="ID|NAME")
@list_options
@target_options
def revoke(token_or_name: str, form: Form, target: Target) -> None:
    """Let tokens be redeemed no more: one by its ID, or all that are for NAME. What was enrolled stays."""
    with connected(target) as connection:
        revoked = connection.revoke_token(token_or_name)
    _show_tokens(revoked, form)


def _show_tokens(tokens: Sequence[TokenInfo], form: Form) -> None:
    if form:
        print_records(plain_list(tokens, TOKEN_INFO_FIELDS), form)
        return
    from covey.cli.views import tables

    tables.show(tables.token_table(tokens))


def _when(seconds: float) -> str:
    from covey.cli.views.tables import when

    return when(seconds)


@coordinator.group(
    "admin",
    cls=Group,
    examples=(
        "covey coordinator admin issue alice --to ~/alice --data-dir /srv/covey",
        "covey admin list --data-dir /srv/covey",
    ),
)
def admin_group() -> None:
    """Who may operate this coordinator (also: covey admin)."""


@admin_group.command(
    "list",
    cls=Command,
    examples=("covey admin list --data-dir /srv/covey", "covey coordinator admin list --json"),
    json_fields=("(a list)", *ADMIN_FIELDS),
)
@list_options
@target_options
def list_admins(form: Form, target: Target) -> None:
    """List admins and auditors. Also works while the coordinator is stopped.

    Whoever can read the coordinator's data directory is an admin, too: its folder `admin` holds an identity.
    """
    with connected(target) as connection:
        admins = connection.admins()
    if form:
        print_records(plain_list(admins, ADMIN_FIELDS), form)
        return
    from covey.cli.views import tables

    tables.show(tables.admin_table(admins))


@admin_group.command(
    cls=Command,
    examples=(
        "covey coordinator admin issue alice --to ~/alice --data-dir /srv/covey",
        "covey admin issue audit-office --role auditor --to ~/audit --data-dir /srv/covey",
        "covey run list --server covey.example.org:7400 --identity ~/alice",
    ),
    json_fields=("name", "role", "folder"),
)
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["admin", "auditor", "member"]),
    default="admin",
    show_default=True,
    help="An auditor may look at everything and change nothing; a member may do what studies allow.",
)
@click.option("--to", "folder", required=True, type=FOLDER, help="A new folder for key and certificate.")
@json_option
@target_options
def issue(name: str, role: str, folder: Path, as_json: bool, target: Target) -> None:
    """Make an identity for NAME, to use from anywhere with --server and --identity."""
    from covey.node.membership.enrolment import enrol

    with connected(target) as connection:
        identity = enrol(connection.token(name, role=role, expires_s=ISSUE_S).token, folder)
    if as_json:
        print_json({"name": identity.name, "role": role, "folder": str(folder)})
    else:
        click.echo(f"{role} {identity.name}: key and certificate are in {folder}; keep the folder private")
