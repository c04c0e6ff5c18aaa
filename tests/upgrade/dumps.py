"""Upgrade dumps: what an older Covey left behind in the middle of a run, and what must come of it.

`make_dumps.py` makes them. Each is a folder `data/VERSION/` with NAME.tar.gz and NAME.json.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from covey.wire.identities.authority import Authority

DATA = Path(__file__).parent / "data"
SQL = "covey.sql"


@dataclass(frozen=True)
class Dump:
    """One dump."""

    archive: Path

    @property
    def id(self) -> str:
        """What tests call it."""
        return f"{self.archive.parent.name}-{self.archive.name.removesuffix('.tar.gz')}"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What is in it, and what must come of it."""
        path = self.archive.with_name(self.archive.name.replace(".tar.gz", ".json"))
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def unpack(self, root: Path) -> Path:
        """Put it where `covey.testing.federation.Federation` expects it, with certificates that are valid today."""
        with tarfile.open(self.archive) as archive:
            archive.extractall(root, filter="data")
        certify_again(root)
        return root


def all_dumps() -> list[Dump]:
    """Every dump that is kept."""
    return [Dump(path) for path in sorted(DATA.glob("*/*.tar.gz"))]


def certify_again(root: Path) -> None:
    """New certificates for the nodes' own keys, also on record; the coordinator renews its own and its admin's."""
    authority = Authority.open(root / "coordinator" / "keys")
    for folder in sorted(root.glob("nodes/*/identity")):
        key = load_pem_private_key((folder / "tls.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{folder} holds another kind of key")
        name = json.loads((folder / "federation.json").read_text())["name"]
        (folder / "tls.crt").write_bytes(authority.issue(name, "node", key.public_key()).pem)
    with closing(sqlite3.connect(root / "coordinator" / "covey.db")) as connection, connection:
        connection.executemany("UPDATE nodes SET certificate_serial = ? WHERE node = ?", serials(root))


def serials(root: Path) -> list[tuple[str, str]]:
    """(serial, node) of each node's certificate."""
    folders = sorted(root.glob("nodes/*/identity"))
    names = [json.loads((folder / "federation.json").read_text())["name"] for folder in folders]
    found = [load_pem_x509_certificate((folder / "tls.crt").read_bytes()).serial_number for folder in folders]
    return [(f"{serial:x}", name) for serial, name in zip(found, names, strict=True)]


def use_postgresql(root: Path, url: str) -> None:
    """Fill an empty database with the dump's record, and take the SQLite one away."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((root / SQL).read_bytes())
        connection.cursor().executemany("UPDATE nodes SET certificate_serial = %s WHERE node = %s", serials(root))
    for path in (root / "coordinator").glob("covey.db*"):
        path.unlink()
