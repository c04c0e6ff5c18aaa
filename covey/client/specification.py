"""Specifications as callers have them: a file, its text, or a mapping."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from covey.errors import NotFound, SpecError
from covey.protos import admin_pb2 as pb
from covey.spec import RunSpec, parse_data, parse_toml, written_in
from covey.texts import read_text

Specification = Path | str | Mapping[str, Any]
"""A TOML file's path; a string with its path or, where it holds an equals sign, its text; the same as a mapping."""


def parsed(spec: Specification, *, later: bool = False) -> RunSpec:
    """The specification, checked as far as that goes without the plug-ins; `later` as in `covey.spec.parse_toml`.

    Raises:
        SpecError: It is wrong; the message names the key.
        NotFound: There is no such file.
    """
    if not isinstance(spec, Mapping):
        return parse_toml(_toml(spec), later=later)
    return parse_data(json.loads(_json(spec)), later=later)


def written_keys(spec: Specification) -> tuple[str, ...]:
    """The keys that somebody wrote in a TOML specification, with dots: those that nothing reads are refused."""
    return () if isinstance(spec, Mapping) else written_in(_toml(spec))


def request_of(spec: Specification) -> pb.SubmitRunRequest:
    """The message that submits it. Raises as `parsed`; what cannot work together is for the coordinator to say."""
    parsed(spec, later=True)
    if isinstance(spec, Mapping):
        return pb.SubmitRunRequest(spec_json=_json(spec))
    return pb.SubmitRunRequest(spec_toml=_toml(spec))


def _json(spec: Mapping[str, Any]) -> str:
    try:
        return json.dumps(spec)
    except (TypeError, ValueError) as error:
        raise SpecError(f"the specification holds what TOML does not know: {error}") from error


def _toml(spec: Path | str) -> str:
    if isinstance(spec, str) and "=" in spec:
        return spec
    path = Path(spec)
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not a text file in UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error
