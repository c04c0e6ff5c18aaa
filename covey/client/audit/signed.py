"""What is signed of a run, as plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Commit:
    """The signed statement that made a version."""

    version: int
    statement: bytes
    signature: bytes


@dataclass(frozen=True)
class SignedUpdate:
    """The signed statement of one node's update, and what is on record beside it."""

    round: int
    node: str
    statement: bytes
    signature: bytes
    signing_key: bytes
    """Raw Ed25519 public key that the node had then."""
    verdict: str
    kept: bool
    """Whether the payload files are still there."""
    base_version: int
    """The version that its round started from."""


@dataclass(frozen=True)
class SignedRecord:
    """Everything that is signed of a run."""

    coordinator_key: bytes
    """Raw Ed25519 public key of the coordinator."""
    commits: tuple[Commit, ...] = ()
    updates: tuple[SignedUpdate, ...] = ()
