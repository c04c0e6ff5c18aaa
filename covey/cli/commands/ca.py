"""`covey ca`: the authority of a federation without a coordinator, and what it certifies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Group, print_json
from covey.cli.framework.options import EXISTING_FILE, EXISTING_FOLDER, FOLDER, json_option

if TYPE_CHECKING:
    from covey.client.authority import Certified

INIT_FIELDS = ("folder", "federation", "created", "expires_at")
REQUEST_FIELDS = ("name", "request", "fingerprint")
ISSUE_FIELDS = ("name", "role", "folder", "federation", "fingerprint", "expires_at", "has_keys")
EVICT_FIELDS = (
    "run",
    "node",
    "incarnation",
    "for_good",
    "told",
    "knew",
    "unreachable (an object: node to reason)",
    "not_for_good (likewise)",
)


@click.group(
    cls=Group,
    examples=(
        "covey ca init --dir /srv/covey-ca",
        "covey ca issue clinic-a --dir /srv/covey-ca --to clinic-a/identity",
    ),
)
def ca() -> None:
    """Certify the nodes of a federation that has no coordinator."""


@ca.command(examples=("covey ca init --dir /srv/covey-ca",), json_fields=INIT_FIELDS)
@click.option("--dir", "folder", type=FOLDER, required=True, help="Where the authority's key and certificate are.")
@json_option
def init(folder: Path, as_json: bool) -> None:
    """Make an authority in a folder; one that is there stays as it is.

    Whoever has the folder decides who belongs to the federation: keep it off the network, and keep a copy.
    """
    from covey.client import authority

    certified = authority.init(folder)
    if as_json:
        values = {"folder": str(folder), "federation": certified.federation, "created": certified.created}
        print_json(values | {"expires_at": certified.expires_at})
        return
    click.echo(
        f"federation {certified.federation}: its authority {'is' if certified.created else 'was already'} in {folder}"
    )
    click.echo("keep this folder private, and a copy of it somewhere else")


@ca.command(
    examples=(
        "covey ca request clinic-a --to /srv/node/identity",
        "covey ca issue clinic-a --dir /srv/covey-ca --request request.csr --to clinic-a",
    ),
    json_fields=REQUEST_FIELDS,
)
@click.argument("name")
@click.option("--to", "folder", type=FOLDER, required=True, help="The node's identity folder: DATA_DIR/identity.")
@json_option
def request(name: str, folder: Path, as_json: bool) -> None:
    """On NAME's own machine: make its keys, which stay there, and a request to bring to the authority."""
    from covey.client import authority

    certified = authority.request(name, folder)
    if as_json:
        print_json({"name": name, "request": str(certified.path), "fingerprint": certified.fingerprint})
        return
    click.echo(
        f"bring {certified.path} to the authority: covey ca issue {name} --dir DIR --request request.csr --to FOLDER"
    )
    click.echo(f"and put the files that it makes into {folder}; the key's fingerprint is {certified.fingerprint}")


@ca.command(
    examples=(
        "covey ca issue clinic-a --dir /srv/covey-ca --to clinic-a/identity",
        "covey ca issue clinic-a --dir /srv/covey-ca --request request.csr --to clinic-a",
        "covey ca issue alice --role admin --dir /srv/covey-ca --to ~/alice --json",
    ),
    json_fields=ISSUE_FIELDS,
)
@click.argument("name")
@click.option("--dir", "authority_folder", type=EXISTING_FOLDER, required=True, help="The authority's folder.")
@click.option(
    "--to", "folder", type=FOLDER, required=True, help="Where the identity goes; for a node DATA_DIR/identity."
)
@click.option("--request", "csr", type=EXISTING_FILE, help="What NAME's machine asks for; else its keys are made here.")
@click.option(
    "--role",
    type=click.Choice(["node", "admin", "auditor", "member"]),
    default="node",
    show_default=True,
    help="Of NAME.",
)
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it is valid.")
@json_option
def issue(
    name: str, authority_folder: Path, folder: Path, csr: Path | None, role: str, days: int, as_json: bool
) -> None:
    """Certify NAME. In a folder that has NAME's identity already: a new certificate for the keys that it has."""
    from covey.client import authority

    certified = authority.issue(authority_folder, name, folder, role=role, days=days, csr=csr)
    if as_json:
        print_json({field: getattr(certified, field) for field in ISSUE_FIELDS} | {"folder": str(folder)})
    else:
        _say(certified)


def _say(certified: Certified) -> None:
    what = "key and certificate are" if certified.has_keys else "what belongs beside its keys is"
    click.echo(f"{certified.role} {certified.name}: {what} in {certified.folder}; keep the folder private")
    if certified.role == "node":
        click.echo("for the peers file:\n")
        click.echo(f'[[peers]]\nname = "{certified.name}"\naddress = "HOST:PORT"  # leave it out if it can only call')
        click.echo(f'fingerprint = "{certified.fingerprint}"')


@ca.command(
    examples=(
        "covey ca evict clinic-a --run digits --peers peers.toml --identity ~/alice --reason 'lost its disk'",
        "covey ca evict clinic-a --run digits --peers peers.toml --dir /srv/covey-ca --incarnation 2 --json",
        "covey ca evict clinic-a --run digits --peers peers.toml --identity ~/alice --for-good --reason 'it lies'",
    ),
    json_fields=EVICT_FIELDS,
)
@click.argument("node")
@click.option("--run", help="Of which run: needed.")
@click.option("--peers", type=EXISTING_FILE, help="The run's peers file, whom to tell: needed.")
@click.option("--incarnation", type=click.IntRange(1), default=1, show_default=True, help="Which life of the node.")
@click.option("--for-good", is_flag=True, help="Every incarnation of it, also those to come.")
@click.option("--reason", default="evicted by an admin", show_default=True, help="For people.")
@click.option("--identity", "identity_folder", type=EXISTING_FOLDER, help="Sign with this admin's key; or")
@click.option("--dir", "authority_folder", type=EXISTING_FOLDER, help="with the authority's own.")
@json_option
def evict(
    node: str,
    run: str | None,
    peers: Path | None,
    incarnation: int,
    for_good: bool,
    reason: str,
    identity_folder: Path | None,
    authority_folder: Path | None,
    as_json: bool,
) -> None:
    """Put an incarnation of NODE out of a gossip run. This cannot be taken back.

    Mass on its way to it comes back to its senders, and is reported as uncertain. The node may take part again as a new
    incarnation, unless it is --for-good. Every node that can be called is told, and says it on.
    """
    if run is None or peers is None:
        whole = f"covey ca evict {node} --run RUN --peers peers.toml --dir DIR"
        raise click.UsageError(f"say of which run, and whom to tell: {whole}{' --for-good' if for_good else ''}")
    if (identity_folder is None) == (authority_folder is None):
        raise click.UsageError("say who signs: --identity of an admin, or --dir of the authority, one of the two")
    from covey.client import authority
    from covey.gossip.ledger import Incarnation
    from covey.node.peers.roster import Roster

    done = authority.evict(
        Incarnation(node, incarnation),
        run,
        Roster.load(peers),
        reason=reason,
        for_good=for_good,
        authority_folder=authority_folder,
        identity_folder=identity_folder,
    )
    if as_json:
        told = {"told": list(done.told), "knew": list(done.knew), "unreachable": done.unreachable}
        told |= {"not_for_good": done.not_for_good}
        print_json({"run": run, "node": node, "incarnation": incarnation, "for_good": for_good, **told})
        return
    who = f"every incarnation of {node}" if for_good else str(done.peer)
    click.echo(f"{who} is out of run {run}; told: {', '.join(done.told) or 'nobody new'}")
    for name, why in done.unreachable.items():
        click.echo(f"  {name} could not be told by us, and hears it from the others: {why}")
    for name, why in done.not_for_good.items():
        click.echo(f"  {name} knows that {done.peer} is out, and does not know --for-good: upgrade it ({why})")
