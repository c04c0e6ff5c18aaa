"""Join tokens: one line of text that a new member pastes once."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar, get_args

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import AfterValidator, BaseModel, Field

from covey.errors import IdentityError
from covey.texts import BOM
from covey.wire.identities.authority import check_name
from covey.wire.identities.canonical import STRICT, Finite

T = TypeVar("T", str, str | None)
PREFIX = "covey1."
SECRET_BYTES = 32
Role = Literal["node", "admin", "auditor", "member"]
ROLES: tuple[str, ...] = get_args(Role)
"""Those that a token may give."""
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
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
    entry_pem: bytes = b""
    """A certificate for `entry_key`, where enrolment is behind the main port's handshake; empty: it has a port."""

    def allows(self, name: str) -> bool:
        """Whether a certificate for this name is what the token promises."""
        prefix, _, number = name.rpartition("-")
        return name == self.name if self.uses == 1 else prefix == self.name and number.isdecimal()

    @property
    def entry_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of `entry_pem`."""
        return entry_key(self.secret)

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
        data |= {"c": self.entry_pem.decode()} if self.entry_pem else {}
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


def entry_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The P-256 key that follows from a token's secret: so the token need not carry one (HKDF, RFC 5869).

    Of 48 bytes modulo the order: no number is likelier than another by more than 2^-128 (FIPS 186-5, A.2.1).
    """
    drawn = HKDF(hashes.SHA256(), length=48, salt=None, info=b"covey entry key").derive(secret)
    return ec.derive_private_key(int.from_bytes(drawn, "big") % (P256_ORDER - 1) + 1, ec.SECP256R1())


def _address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError("not HOST:PORT")
    return value


def _hex_secret(value: str) -> str:
    if len(bytes.fromhex(value)) != SECRET_BYTES:
        raise ValueError(f"not {SECRET_BYTES} bytes")
    return value


def _pem(value: T) -> T:
    if value is not None:
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
    entry: Annotated[str | None, Field(alias="c"), AfterValidator(_pem)] = None

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
            (self.entry or "").encode(),
        )
