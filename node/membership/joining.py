"""A machine that enrols itself at its first start, with a token from a file that other machines may read too.

Killed at any moment, the next start goes on with the same token and the same keys, so that it takes one use of it:

    FILE -> DATA/join.token -> DATA/identity/tls.key, signing.key -> DATA/identity/ -> (join.token deleted)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import stamina
import structlog
from cryptography import x509

from covey import faults
from covey.errors import Conflict, CoveyError, IdentityError
from covey.node.membership.enrolment import check_keys, join
from covey.node.operator.config import IDENTITY_FOLDER
from covey.texts import read_pem, read_text
from covey.wire.identities.authority import federation_of, write_private
from covey.wire.identities.tokens import JoinToken

log = structlog.get_logger(room="node")
TOKEN_FILE = "join.token"
FIRST_WAIT_S, MAX_WAIT_S = 0.5, 5.0
REFUSALS = (IdentityError, Conflict)
"""What makes a token useless for good. Anything else may pass."""


class NoToken(CoveyError):
    """There is no token that this machine could use; the message says what to do."""

    code = "no-token"


def join_when_new(data_dir: Path, source: Path, authority: Path | None = None) -> None:
    """Enrol this machine, if its data directory has no identity yet; waits for a coordinator that is away.

    Args:
        data_dir: The node's own folder; made if missing.
        source: A file with a join token, which is only read.
        authority: The certificate (PEM) of the one authority whose tokens are used. Without it whoever can write
            the token decides which federation this machine joins.

    Raises:
        NoToken: There is no token, or it cannot be read, or it is another authority's.
        IdentityError: The token was refused for good; this machine has dropped it.
    """
    stamina.instrumentation.set_on_retry_hooks([])  # it is said here what is waited for
    with _explained(f"this user must be able to write to {data_dir}"):
        if not (data_dir / IDENTITY_FOLDER / "federation.json").exists():
            check_keys(data_dir / IDENTITY_FOLDER)  # a token is not even kept for damaged ones
            _enrol(data_dir, _own_token(data_dir, source, _trusted(authority)))
            faults.reach("joined")
        (data_dir / TOKEN_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NoToken(f"this machine cannot enrol: {error.strerror} ({error.filename}); {advice}") from error


def _trusted(authority: Path | None) -> str:
    """Which federation's tokens are used; empty: any."""
    if authority is None:
        return ""
    try:
        return federation_of(x509.load_pem_x509_certificate(read_pem(authority)))
    except (OSError, ValueError) as error:
        raise NoToken(f"{authority} is not an authority's certificate (PEM): {error}") from error


def _federation(token: JoinToken) -> str:
    return federation_of(x509.load_pem_x509_certificate(token.authority_pem))


def _own_token(data_dir: Path, source: Path, trusted: str) -> str:
    """The token that is this machine's from now on, on its own disk."""
    kept = data_dir / TOKEN_FILE
    data_dir.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        with _explained("this user must be able to read the token's file"):
            text = _read(source)
        if trusted and _federation(JoinToken.decode(text)) != trusted:
            raise NoToken(f"the token in {source} is of another authority than the one that this machine is to join")
        write_private(kept, text.encode())
        faults.reach("token-kept")
    return read_text(kept)


def _read(source: Path) -> str:
    if source.is_dir():
        raise NoToken(
            f"{source} is a folder; give --join a file with a join token, which several machines may share: "
            "covey coordinator token --uses N"
        )
    if not source.exists():
        raise NoToken(f"{source} is not there; give --join a file with a join token")
    text = read_text(source)
    JoinToken.decode(text)
    return text


def _enrol(data_dir: Path, token: str) -> None:
    try:
        for attempt in stamina.retry_context(
            on=_worth_another_try, attempts=None, timeout=None, wait_initial=FIRST_WAIT_S, wait_max=MAX_WAIT_S
        ):
            with attempt:
                identity = join(token, data_dir)
                log.info("joined", node=identity.name, federation=identity.federation)
    except REFUSALS as error:
        (data_dir / TOKEN_FILE).unlink(missing_ok=True)
        raise IdentityError(f"{error} (this machine's join token was refused; put another one in its place)") from error


def _worth_another_try(error: Exception) -> bool:
    if not isinstance(error, CoveyError) or isinstance(error, REFUSALS):
        return False
    log.warning("cannot enrol yet; trying again", reason=str(error))
    return True
