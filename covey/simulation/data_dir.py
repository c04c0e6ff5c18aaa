"""Where a simulation keeps its record: a coordinator's data directory, for the inspection commands."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import event

from covey.coordinator.config import DATABASE, sqlite_url
from covey.errors import SpecError
from covey.storage.record.contract import NodeRecord, Store, TokenRecord
from covey.storage.sql.store import SqlStore, open_store
from covey.wire.identities.signing import SigningKey

MARKER = "simulation.json"
NODES, WORKERS = "nodes", "workers"
SCRATCH = (NODES, "drills", WORKERS)
"""Folders that nothing needs after the simulation."""
LOG = "workers.log"


def prepared_folder(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Make a folder ready for a simulation, which `facts` describe; it may hold earlier ones.

    Raises:
        SpecError: It holds something else.
    """
    if folder.exists() and not (folder / MARKER).exists() and any(folder.iterdir()):
        what = "a coordinator's record" if (folder / DATABASE).exists() else "files"
        raise SpecError(f"--data-dir: {folder} holds {what}, and not a simulation's; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(json.dumps(facts, indent=2))
    return folder


def remove_scratch(folder: Path, *, nodes_too: bool = True) -> None:
    """Drop what nothing needs after the simulation; what nodes keep is needed where its run goes on later."""
    for name in SCRATCH:
        if name != NODES or nodes_too:
            shutil.rmtree(folder / name, ignore_errors=True)


def open_relaxed(folder: Path) -> SqlStore:
    """The folder's store, which does not wait for the disk: after a power cut a simulation is run again."""
    store = open_store(sqlite_url(folder))

    @event.listens_for(store.database.engine, "connect")
    def _relax(connection: Any, record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    return store


def enrol(store: Store, keys: Mapping[str, SigningKey], now: float) -> None:
    """Make just these the store's nodes, with their keys; others of earlier simulations have left. Blocking."""
    known = {record.node for record in store.nodes()}
    for gone in known - set(keys):
        store.set_node_state(gone, "left")
    for node, key in keys.items():
        if node in known:
            store.renew_node(node, "", 0.0, key.public_bytes, key.key_id, now)
            store.set_node_state(node, "active")
        else:
            _enrol_new(store, node, key, now)


def _enrol_new(store: Store, node: str, key: SigningKey, now: float) -> None:
    secret = hashlib.sha256(secrets.token_bytes(32)).hexdigest()
    store.add_token(TokenRecord(secret, node, "node", now, now))
    record = NodeRecord(node, "node", "active", now, signing_key=key.public_bytes, key_id=key.key_id)
    store.redeem_token(secret, key.key_id, b"", record)
