"""Canonical JSON: one way to write a value, and strict reading of what somebody else wrote."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from covey.errors import IdentityError, LimitExceeded

MAX_COUNT = 2**31
"""Rounds and versions are below it: what every database holds."""
MAX_BYTES = 2**53
MAX_TEXT = 200
MAX_TOLD = 20
"""A statement with more errors than this is not explained: that would take longer than to find them."""
STRICT = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
"""How values from anybody are read: no conversion, and no key that is not known."""
T = TypeVar("T")


def printable(value: str) -> str:
    """The value, if it has no control characters. Raises ValueError."""
    if not value.isprintable():
        raise ValueError("not a printable text")
    return value


Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(printable)]
"""No control characters, which logs and databases would choke on."""
Count = Annotated[int, Field(ge=0, lt=MAX_COUNT)]
"""A round or version."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


def canonical_json(value: object) -> bytes:
    """Sorted keys, no spaces, ASCII, finite numbers only.

    Raises:
        LimitExceeded: A number in it is not finite, or it is nested too deep.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise LimitExceeded(f"this cannot be put into a statement: {error}") from error
    return text.encode("ascii")


def read_canonical(reader: TypeAdapter[T], raw: bytes, kind: str | tuple[str, ...], max_bytes: int) -> T:
    """A statement from anybody.

    Only canonical bytes are read: any two readers understand the same, also where a key stands twice.

    Args:
        reader: Of a type whose field `covey` is the statement's kind.
        raw: The bytes.
        kind: What `covey` must say (the statement's kind and version), or several of which it may say one.
        max_bytes: How long they may be.

    Raises:
        LimitExceeded: They are longer.
        IdentityError: They are not the canonical JSON of such a statement.
    """
    if len(raw) > max_bytes:
        raise LimitExceeded(f"a statement of {len(raw)} bytes; at most {max_bytes} are accepted")
    try:
        data = json.loads(raw)
        canonical = canonical_json(data) == raw
    except (ValueError, RecursionError, LimitExceeded) as error:
        raise IdentityError("a statement is not JSON") from error
    kinds = (kind,) if isinstance(kind, str) else kind
    if not isinstance(data, dict) or data.get("covey") not in kinds:
        raise IdentityError(f"not a statement of kind {kinds[-1]!r}")
    if not canonical:
        raise IdentityError("a statement is not in canonical form")
    try:
        return reader.validate_json(raw)
    except ValidationError as error:
        raise IdentityError(f"statement: {_first(error)}") from None  # it may be long


def _first(error: ValidationError) -> str:
    """The first thing that is wrong. Keys are from anybody, too: they are cut, and written so that they print."""
    if error.error_count() > MAX_TOLD:
        return f"{error.error_count()} fields are wrong"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part)[:MAX_TEXT] for part in first["loc"])
    return f"{place!r}: {first['msg']}"


def text(value: object, name: str, limit: int = MAX_TEXT) -> str:
    """A printable text: no control characters, which logs and databases would choke on."""
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise IdentityError(f"statement: {name} is not a printable text of at most {limit} characters")
    return value
