"""The peers file: who takes part in a gossip run, and where each can be reached.

[[peers]]
name = "clinic-a"
address = "a.example.org:7410"
fingerprint = "9f86d0..."       # of its key, as `covey ca issue` prints it; or: certificate = "clinic-a.crt"

[[peers]]
name = "clinic-b"               # no address: it only calls, and takes part over what it opened itself
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from covey.errors import IdentityError, SpecError
from covey.texts import read_pem, read_text
from covey.validation import explain
from covey.wire.channels import Peer, key_sha256
from covey.wire.identities.authority import check_name

MAX_PEERS = 4000
"""The mass of more nodes than that does not fit into 64 bits."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    address: str = Field(default="", pattern=r"^(|\S+:\d{1,5})$")
    fingerprint: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    certificate: str = ""
    site: str = Field(default="", max_length=63)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    peers: list[_Entry] = Field(min_length=1, max_length=MAX_PEERS)


@dataclass(frozen=True)
class Member:
    """One node of a run.

    Attributes:
        name: What its certificate says.
        address: `HOST:PORT` of its peer listener; empty: it only calls.
        fingerprint: SHA-256 (hex) of its certificate's public key (its SubjectPublicKeyInfo in DER); empty: any
            certificate of the authority for this name counts.
        site: Where it is, for topologies that know sites; empty: a site of its own.
    """

    name: str
    address: str = ""
    fingerprint: str = ""
    site: str = ""


class Roster:
    """Who takes part in a run, by name."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self.members = dict(sorted(members.items()))

    @classmethod
    def load(cls, path: Path) -> Roster:
        """Read a peers file; paths in it are relative to its folder.

        Raises:
            SpecError: It is none; the message says what is wrong and where.
        """
        try:
            read = _File.model_validate(tomllib.loads(read_text(path)))
        except ValidationError as error:
            raise SpecError(f"{path}: {explain(error, _File)}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise SpecError(f"the peers file {path} cannot be read: {error}") from error
        members: dict[str, Member] = {}
        for number, entry in enumerate(read.peers):
            try:
                if check_name(entry.name) in members:
                    raise IdentityError("this name stands there twice")
                members[entry.name] = Member(entry.name, entry.address, _pinned(entry, path.parent), entry.site)
            except IdentityError as error:
                raise SpecError(f"{path}: peers.{number}: {error}") from error
        return cls(members)

    def add(self, members: Iterable[Member]) -> None:
        """Further nodes take part from now on."""
        self.members.update({member.name: member for member in members})

    def admit(self, peer: Peer) -> Member:
        """The member that a certificate stands for.

        Raises:
            IdentityError: It stands for none.
        """
        member = self.members.get(peer.name)
        if peer.role != "node" or member is None:
            raise IdentityError(f"{peer.name!r} takes no part in this run: the peers file does not name it")
        if member.fingerprint not in ("", peer.key_sha256):
            raise IdentityError(f"the key of {peer.name!r} is not the one that the peers file names")
        return member


def _pinned(entry: _Entry, folder: Path) -> str:
    if not entry.certificate:
        return entry.fingerprint
    path = folder / entry.certificate
    try:
        fingerprint = key_sha256(x509.load_pem_x509_certificate(read_pem(path)).public_key())
    except (OSError, ValueError) as error:
        raise IdentityError(f"the certificate {path} cannot be read: {error}") from error
    if entry.fingerprint not in ("", fingerprint):
        raise IdentityError(f"the certificate {path} does not have the fingerprint {entry.fingerprint}")
    return fingerprint
