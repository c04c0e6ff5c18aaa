"""Join tokens: one line of text that a new member pastes once."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from cryptography import x509
from pydantic import AfterValidator, BaseModel, Field

from covey.errors import IdentityError
from covey.texts import BOM
from covey.wire.identities.authority import check_name
from covey.wire.identities.canonical import STRICT, Finite

PREFIX = "covey1."
SECRET_BYTES = 32
Role = Literal["node", "admin", "auditor", "member"]
ROLES: tuple[str, ...] = get_args(Role)
"""Those that a token may give."""
MAX_TEXT = 16_384
MAX_USES = 10_000
_AROUND = BOM + "\"'`\u200b\u2018\u2019\u201c\u201d<>"
"""What mail programs and editors put around it."""
_OF_MAIL = re.compile(r"^[ \t]*>[> \t]*|=\r?$", re.MULTILINE)
"""What mail programs put into it: marks of quoted lines, and of soft line breaks."""
MAX_BEFORE = 40
"""Characters before it on its line: a prompt, or the name of a variable (`TOKEN=`)."""
_ADDRESS = re.compile(r"[^\s:/]+:[0-9]{1,5}|\[[0-9a-fA-F:.%]+\]:[0-9]{1,5}")


@dataclass(frozen=True)
class JoinToken:
    """What a token carries: where to enrol, whom to trust there, and the secret."""

    name: str
    """Of the identity; with several uses, identities are named NAME-1, NAME-2, ..."""
    role: str
    server: str
    enrol: str
    authority_pem: bytes
    secret: bytes = field(repr=False)
    expires_at: float
    uses: int = 1
    """How many identities can be enrolled with it."""

    def allows(self, name: str) -> bool:
        """Whether a certificate for this name is what the token promises."""
        prefix, _, number = name.rpartition("-")
        return name == self.name if self.uses == 1 else prefix == self.name and number.isdecimal()

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
        } | ({"u": self.uses} if self.uses > 1 else {})
        body = json.dumps(data, separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(body).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> JoinToken:
        """Read a token; what copying and mail put around it or into it does no harm.

        Raises:
            IdentityError: It is not a whole token.
        """
        before, prefix, body = "".join(_OF_MAIL.sub("", text).split()).partition(PREFIX)
        if not prefix or len(before) > MAX_BEFORE:
            raise IdentityError("this is not a join token: it should begin with covey1.")
        body = body.strip(_AROUND)
        try:
            if len(body) > MAX_TEXT:
                raise ValueError("too long")
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            return _Token.model_validate_json(raw).opened()
        except (ValueError, IdentityError):  # which may hold the secret
            raise IdentityError("the join token is damaged; copy the whole line") from None


def _address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError("not HOST:PORT")
    return value


def _hex_secret(value: str) -> str:
    if len(bytes.fromhex(value)) != SECRET_BYTES:
        raise ValueError(f"not {SECRET_BYTES} bytes")
    return value


def _pem(value: str) -> str:
    x509.load_pem_x509_certificate(value.encode())
    return value


class _Token(BaseModel):
    """A token as it is written, with keys of one letter: it is one line that people copy."""

    model_config = STRICT

    name: Annotated[str, Field(alias="n"), AfterValidator(check_name)]
    role: Role = Field(alias="r")
    server: Annotated[str, Field(alias="s"), AfterValidator(_address)]
    enrol: Annotated[str, Field(alias="e"), AfterValidator(_address)]
    authority: Annotated[str, Field(alias="a"), AfterValidator(_pem)]
    secret: Annotated[str, Field(alias="k"), AfterValidator(_hex_secret)]
    expires_at: Finite = Field(alias="x")
    uses: int = Field(1, alias="u", ge=1, le=MAX_USES)

    def opened(self) -> JoinToken:
        """What it says."""
        return JoinToken(
            self.name,
            self.role,
            self.server,
            self.enrol,
            self.authority.encode(),
            bytes.fromhex(self.secret),
            self.expires_at,
            self.uses,
        )
