"""What a request asks for: numbers and names of its address, within limits."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

MOST_CHARS = 200
"""Of a name."""


def number(request: Request, name: str, default: int, most: int = 2**31 - 1) -> int:
    """A whole number from 0 up to `most`; what is larger counts as `most`.

    Raises:
        HTTPException: It is none.
    """
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < MOST_CHARS):
        raise HTTPException(400, f"{name} is not a whole number")
    return min(int(text), most)


def text(request: Request, name: str) -> str:
    """A short text, empty by default. Raises `HTTPException`: it is longer."""
    value = request.query_params.get(name, "")
    if len(value) > MOST_CHARS:
        raise HTTPException(400, f"{name} is longer than {MOST_CHARS} characters")
    return value


def choice(request: Request, name: str, choices: tuple[str, ...]) -> str:
    """One of several words, by default the first. Raises `HTTPException`: another one."""
    value = request.query_params.get(name, choices[0])
    if value not in choices:
        raise HTTPException(400, f"{name} is one of {', '.join(choices)}")
    return value
