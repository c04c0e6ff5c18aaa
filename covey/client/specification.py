"""Specifications as callers have them: a file, its text, or a mapping."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from covey.errors import NotFound, PluginError, SpecError
from covey.protos import admin_pb2 as pb
from covey.spec import GossipSpec, RunSpec, parse_data, parse_toml, without_faults, written_in
from covey.texts import BOM, read_text, why_no_toml

Specification = Path | str | Mapping[str, Any]
"""A TOML file's path; a string with its path or, where it holds an equals sign, its text; the same as a mapping."""
EDGES = re.compile(r"""\bedges["']?\s*=\s*("(?:[^"\\\n]|\\.)*"|'[^'\n]*')""")
"""Where TOML says `edges` and a string: [gossip.topology] options may name a file of edges so."""
DECIDING = ("gossip.protocol", "gossip.topology", "gossip.mixing")
"""Where one of these is wrong, nobody knows with what the rest of a gossip run would have to go together."""


def parsed(spec: Specification, *, later: bool = False) -> RunSpec:
    """The specification, checked as far as that goes without the plug-ins; `later` as in `covey.spec.parse_toml`.

    Raises:
        SpecError: It is wrong; the message names each key, and with wrong values also what else could not work.
        NotFound: There is no such file.
    """
    if isinstance(spec, Mapping):
        data = json.loads(_json(spec))
        with _all_faults(lambda: data):
            return parse_data(data, later=later)
    text = _toml(spec)
    with _all_faults(lambda: tomllib.loads(text.removeprefix(BOM))):
        return parse_toml(text, later=later)


@contextlib.contextmanager
def _all_faults(data: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Say in the error of this block also what the wrong values hide."""
    try:
        yield
    except SpecError as error:
        text, hidden = str(error), []
        with contextlib.suppress(tomllib.TOMLDecodeError, RecursionError):  # which the error says
            hidden = [more for more in _hidden(data()) if more[: more.find(": ") + 2] not in text]
        raise SpecError("; ".join([text, *hidden])) from error


def _hidden(data: Mapping[str, Any]) -> Iterator[str]:
    """The combinations that could not work either in a specification with wrong values."""
    spec, wrong = without_faults(data)
    if spec is None:
        return
    yield from (f"{key}: {text}" for key, text, _ in spec.impossible())
    if not isinstance(spec, GossipSpec) or any(key == "gossip" or key.startswith(DECIDING) for key in wrong):
        return
    from covey.gossip.protocols.runs import impossible_in  # only a mistake needs it

    try:
        yield from (f"{key}: {text}" for key, text in impossible_in(spec))
    except (PluginError, SpecError) as error:
        yield str(error)


def gossip_spec(spec: Specification) -> GossipSpec:
    """The specification of a gossip run. Raises as `parsed`, and SpecError where it is of another mode."""
    known = parsed(spec)
    if not isinstance(known, GossipSpec):
        raise SpecError(
            f'mode: "{known.mode}" is not gossip; write mode = "gossip" above the first [section] of the specification'
        )
    return known


def folder_of(spec: Specification) -> Path:
    """From where the relative paths in a specification count: the folder of its file, or the present one."""
    return Path() if isinstance(spec, Mapping) or (isinstance(spec, str) and "=" in spec) else Path(spec).parent


def written_keys(spec: Specification) -> tuple[str, ...]:
    """The keys that somebody wrote in a TOML specification, with dots: those that nothing reads are refused."""
    return () if isinstance(spec, Mapping) else written_in(_toml(spec))


def request_of(spec: Specification) -> pb.SubmitRunRequest:
    """The message that submits it. Raises as `parsed`; what cannot work together is for the coordinator to say."""
    try:
        parsed(spec, later=True)
    except SpecError:
        parsed(spec)  # it does not get to the coordinator: all that can be said without it is said here
        raise
    if isinstance(spec, Mapping):
        return pb.SubmitRunRequest(spec_json=_json(spec))
    return pb.SubmitRunRequest(spec_toml=_toml(spec))


def _json(spec: Mapping[str, Any]) -> str:
    try:
        return json.dumps(spec)
    except (TypeError, ValueError) as error:
        raise SpecError(f"the specification holds what TOML does not know: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file; edges that a specification has in a file of their own are in their place.

    Raises:
        NotFound: There is no such file.
        SpecError: It is no TOML, or the file of edges is wrong.
    """
    return toml_of(_toml(path), str(path))


def toml_of(text: str, what: str) -> dict[str, Any]:
    """The same of a text. Raises SpecError, which calls it `what`."""
    try:
        return tomllib.loads(text.removeprefix(BOM))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"{what}: not valid TOML: {why_no_toml(text, error)}") from error


def _toml(spec: Path | str) -> str:
    if isinstance(spec, str) and "=" in spec:
        return spec
    path = Path(spec)
    try:
        return _with_edges(read_text(path), path.parent)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not a text file in UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error


def _with_edges(text: str, folder: Path) -> str:
    """A specification with the edges themselves, where it names a file of them, by its path from the specification's.

    Raises:
        SpecError: The file cannot be read, with its line; or where it is named cannot be found in the text.
    """
    places = list(EDGES.finditer(text))
    named = _file_of_edges(text) if places else None
    if named is None:
        return text
    from covey.gossip.topologies.given import read_edges

    edges = json.dumps(read_edges(folder / named), ensure_ascii=False, separators=(",", ":"))
    for place in places:
        whole = text[: place.start(1)] + edges + text[place.end(1) :]
        with contextlib.suppress(tomllib.TOMLDecodeError):
            if _file_of_edges(whole) is None:
                return whole
    raise SpecError(f'gossip.topology.options.edges: write edges = "{named}" on a line of its own')


def _file_of_edges(text: str) -> str | None:
    """The file that a specification names in place of edges; None: it names none, or is no TOML, which others say."""
    try:
        topology: Any = tomllib.loads(text.removeprefix(BOM))["gossip"]["topology"]
        named = topology["options"]["edges"] if topology["name"] == "file" else None
    except (tomllib.TOMLDecodeError, RecursionError, LookupError, TypeError):
        return None
    return named if isinstance(named, str) else None
