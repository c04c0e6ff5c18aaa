"""The gossip runs that a coordinator handed out: on disk, as a node goes on with them that starts while it is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from covey import messages as msg
from covey.node.gossip.folders import FOLDER, run_folder
from covey.storage.files.spool import disk_errors, sync_folder

log = structlog.get_logger(room="gossip")
FILE = "order.json"
_ORDER = TypeAdapter(msg.GossipOrder)


def keep_order(data_dir: Path, order: msg.GossipOrder) -> None:
    """Put an order on disk, in place of what was known of the run. Blocking.

    Raises:
        SpecError: The run's name cannot be a folder's.
        StoreError: It cannot be written.
    """
    folder = run_folder(data_dir, order.run)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / f"{FILE}.new"
        staged.write_text(json.dumps(asdict(order)))
        staged.rename(folder / FILE)
        sync_folder(folder)


def forget_order(data_dir: Path, run: str) -> None:
    """A run is over: nothing of it is to be gone on with. Its record stays. Blocking.

    Where the file cannot be removed, the run is gone on with after a restart, until the coordinator says again that
    it is over.
    """
    path = run_folder(data_dir, run) / FILE
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("the order of a run that is over cannot be removed", file=str(path), reason=str(error))


def kept_orders(data_dir: Path) -> Iterator[msg.GossipOrder]:
    """The orders on disk, the oldest first; one that cannot be read is passed over, and said. Blocking."""
    paths = sorted((data_dir / FOLDER).glob(f"*/{FILE}"), key=lambda path: (path.stat().st_mtime, path))
    for path in paths:
        try:
            yield _ORDER.validate_json(path.read_bytes())
        except (ValidationError, OSError) as error:
            log.warning("an order that cannot be read", file=str(path), reason=repr(error)[:200])


def founders_of(order: msg.GossipOrder) -> list[str]:
    """With whom the run began."""
    return [member.name for member in order.members if not member.late]


def revised_in(known: msg.GossipOrder, order: msg.GossipOrder) -> list[msg.GossipMember] | None:
    """Who takes part since an earlier order, or has another address or key; None: that is not all that has changed."""
    before = {member.name: member for member in known.members}
    if replace(known, members=()) != replace(order, members=()) or before.keys() - {m.name for m in order.members}:
        return None
    revised = [member for member in order.members if before.get(member.name) != member]
    parts = [(before[m.name].late, before[m.name].part) == (m.late, m.part) for m in revised if m.name in before]
    return revised if all(parts) else None
