"""Join tokens: one line of text that a new member pastes once."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509

from covey.errors import IdentityError
from covey.wire.authority import check_name

PREFIX = "covey1."
SECRET_BYTES = 32
ROLES = ("node", "admin", "auditor")
"""Those that a token may give."""
MAX_TEXT = 16_384
TOKEN_SUFFIX = ".token"
"""In a folder of tokens: an unused one, NAME.token."""
TAKEN_MARK = ".taken-"
"""There: one that a machine has claimed, NAME.taken-RANDOM."""
_ADDRESS = re.compile(r"[^\s:/]+:[0-9]{1,5}|\[[0-9a-fA-F:.%]+\]:[0-9]{1,5}")


@dataclass(frozen=True)
class JoinToken:
    """What a token carries: where to enrol, whom to trust there, and the one-time secret."""

    name: str
    role: str
    server: str
    enrol: str
    authority_pem: bytes
    secret: bytes = field(repr=False)
    expires_at: float

    @property
    def secret_sha256(self) -> str:
        """What the record keeps of the secret."""
        return hashlib.sha256(self.secret).hexdigest()

    def encode(self) -> str:
        """The token as text."""
        data = {
            "n": self.name,
            "r": self.role,
            "s": self.server,
            "e": self.enrol,
            "a": self.authority_pem.decode(),
            "k": self.secret.hex(),
            "x": self.expires_at,
        }
        body = json.dumps(data, separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(body).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> JoinToken:
        """Read a token; line breaks from copying do no harm.

        Raises:
            IdentityError: It is not a whole token.
        """
        text = "".join(text.split())
        if not text.startswith(PREFIX):
            raise IdentityError("this is not a join token: it should begin with covey1.")
        body = text.removeprefix(PREFIX)
        try:
            if len(body) > MAX_TEXT:
                raise ValueError("too long")
            data = json.loads(base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True))
            return _checked(data)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, IdentityError) as error:
            raise IdentityError("the join token is damaged; copy the whole line") from error


def read_token(path: Path) -> JoinToken:
    """The token in a file of a folder that others can write to.

    Raises:
        IdentityError: It is not a file, or it holds no whole token.
        FileNotFoundError: It is gone.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > 2 * MAX_TEXT:
        raise IdentityError("this is not a file with a join token")
    return JoinToken.decode(path.read_text(errors="replace"))


def _checked(data: dict[str, Any]) -> JoinToken:
    """A token from its decoded fields. Raises what wrong types and values happen to raise."""
    texts = [data[key] for key in ("n", "r", "s", "e", "a", "k")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("not texts")
    name, role, server, enrol, authority, secret = texts
    x509.load_pem_x509_certificate(authority.encode())
    token = JoinToken(
        check_name(name), role, server, enrol, authority.encode(), bytes.fromhex(secret), float(data["x"])
    )
    addresses = all(_ADDRESS.fullmatch(address) for address in (server, enrol))
    if role not in ROLES or not addresses or len(token.secret) != SECRET_BYTES or not math.isfinite(token.expires_at):
        raise ValueError("a value out of bounds")
    return token
