"""A folder of unused join tokens, for machines that enrol themselves: `covey coordinator token --to FOLDER`.

NAME.token           an unused one
NAME.taken-RANDOM    one that a machine has claimed and not yet copied
.issued              locked by whoever fills the folder; the highest number given so far, by prefix
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from covey.client.values import Node, Token
from covey.errors import Conflict, CoveyError, IdentityError
from covey.wire.identities.authority import check_name, write_private
from covey.wire.identities.identity import Identity
from covey.wire.identities.tokens import TAKEN_MARK, TOKEN_SUFFIX, read_token

LOCK_FILE = ".issued"


class TokenSource(Protocol):
    """A connection to a coordinator, as far as tokens need it."""

    @property
    def identity(self) -> Identity:
        """Whose authority tokens must have."""

    def nodes(self) -> list[Node]:
        """All nodes that were ever enrolled."""

    def token(self, node: str = "", *, role: str = "node", expires_s: float = 3600.0) -> Token:
        """A one-time join token."""


@dataclass(frozen=True)
class Filled:
    """What a call did: the names that it made tokens for, and how many unused ones the folder has now."""

    made: list[str]
    unused: int


def fill(folder: Path, source: TokenSource, *, count: int, prefix: str, expires_s: float) -> Filled:
    """Make tokens until the folder has `count` unused ones; those that nobody can use any more are deleted.

    Args:
        folder: Made with mode 0700 if missing.
        source: A connection to the coordinator.
        count: How many unused tokens there are to be.
        prefix: New names are PREFIX-N, with the next number above all that were ever given.
        expires_s: How long a new token can be used, in seconds.

    Raises:
        IdentityError: The prefix cannot begin a name.
        CoveyError: The folder cannot be written, or the coordinator refuses.
    """
    check_name(f"{prefix}-1")
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(folder) as lock:
            unused = len(_unused(folder, source.identity.authority_pem))
            numbers = _numbers(lock, prefix, _given(folder, source))
            added = [_add(folder, source, numbers, prefix, expires_s) for _ in range(count - unused)]
            return Filled(added, unused + len(added))


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CoveyError(f"{folder} cannot be filled with tokens: {error.strerror} ({error.filename})") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """One caller at a time; the open lock file."""
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _unused(folder: Path, authority: bytes) -> list[Path]:
    """Tokens that a machine can use. Those that none can, and what a killed caller left half-written, are deleted."""
    for left in folder.glob(f"*{TOKEN_SUFFIX}.tmp"):
        left.unlink(missing_ok=True)
    tokens = []
    for path in (*folder.glob(f"*{TOKEN_SUFFIX}"), *folder.glob(f"*{TAKEN_MARK}*")):
        # One that was claimed meanwhile is gone. What is no token does no harm: machines pass it over, too.
        with contextlib.suppress(FileNotFoundError, IdentityError):
            token = read_token(path)
            if token.authority_pem != authority or token.expires_at <= time.time():
                path.unlink()
            elif path.name.endswith(TOKEN_SUFFIX):
                tokens.append(path)
    return tokens


def _add(folder: Path, source: TokenSource, numbers: Iterator[int], prefix: str, expires_s: float) -> str:
    """One more token; its name."""
    for number in numbers:
        name = f"{prefix}-{number}"
        with contextlib.suppress(Conflict):  # an admin has that name
            token = source.token(name, expires_s=expires_s)
            write_private(folder / f"{name}{TOKEN_SUFFIX}", token.token.encode())
            return name
    raise AssertionError("unreachable")


def _given(folder: Path, source: TokenSource) -> list[str]:
    """The names of all enrolled nodes, whatever became of them, and of all tokens in the folder."""
    tokens = [path.name for path in folder.iterdir() if path.name.endswith(TOKEN_SUFFIX) or TAKEN_MARK in path.name]
    return [node.node for node in source.nodes()] + [name.partition(".")[0] for name in tokens]


def _numbers(lock: int, prefix: str, given: Iterable[str]) -> Iterator[int]:
    """Numbers that were never given before: also not to a machine that has claimed its token and not yet joined."""
    issued = _issued(lock)
    issued[prefix] = max(issued.get(prefix, 0), _highest(prefix, given))
    while True:
        issued[prefix] += 1
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(issued).encode(), 0)
        os.fsync(lock)
        yield issued[prefix]


def _issued(lock: int) -> dict[str, int]:
    """What the lock file says; nothing if a crash has cut it off."""
    try:
        return {str(prefix): int(number) for prefix, number in json.loads(os.pread(lock, 1 << 20, 0)).items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def _highest(prefix: str, names: Iterable[str]) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}-([0-9]{{1,9}})")
    return max((int(match[1]) for match in map(pattern.fullmatch, names) if match), default=0)
