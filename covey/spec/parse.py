"""Reading a specification: its `mode` says by which model."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from covey.errors import SpecError
from covey.spec.bounds import ON_RECORD
from covey.spec.modes import DEFAULT, model_named
from covey.spec.run import RunSpec
from covey.spec.sections import LATER
from covey.spec.unread import chosen_keys, refuse_unread, unread_in, written_keys
from covey.texts import BOM, why_no_toml
from covey.validation import explain

MOST_TRIES = 8


def parse_toml(text: str, *, later: bool = False) -> RunSpec:
    """Read a run specification.

    Args:
        text: In TOML.
        later: Accept values that rule each other out, and keys that the mode does not read: the coordinator's worker
            refuses them, with all else that cannot work. So does whoever has the record refuse what is above its bound
            in a run that begins with another one's model: the other one may have it, too.

    Raises:
        SpecError: Not TOML, or a key is unknown, missing or has a wrong value; the message says which and why.
    """
    try:
        data = tomllib.loads(text.removeprefix(BOM))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"not valid TOML: {why_no_toml(text, error)}") from error
    written = tuple(written_keys(data))
    try:
        spec = _validated(data, later=later)
    except SpecError as error:
        mode = data.get("mode", DEFAULT)
        unread = [] if later else unread_in(model_named(mode), str(mode), written)
        others = [f"{key}: {text}" for key, text in unread if f"{key}: " not in str(error)]
        raise SpecError("; ".join([str(error), *others])) from error
    if not later:
        refuse_unread(spec, written)
    return spec


def written_in(text_toml: str) -> tuple[str, ...]:
    """The keys of a specification in TOML that somebody wrote, with dots; none of what is no TOML."""
    try:
        return tuple(written_keys(tomllib.loads(text_toml)))
    except (tomllib.TOMLDecodeError, RecursionError):
        return ()


def parse_data(data: Mapping[str, Any], *, later: bool = False) -> RunSpec:
    """Read a specification that is a mapping already; `later` as in `parse_toml`, but for keys that are not read.

    Raises:
        SpecError: A key is unknown, missing, not read or has a wrong value; the message says which and why.
    """
    spec = _validated(data, later=later)
    refuse_unread(spec, chosen_keys(spec, data))
    return spec


def without_faults(data: Mapping[str, Any]) -> tuple[RunSpec | None, tuple[str, ...]]:
    """What the rest of a specification says where some of its keys are wrong, and which keys those are, with dots.

    It is for finding further faults only. None: it cannot be told, as a key is missing, or the mode is unknown.
    """
    wrong: list[str] = []
    for _ in range(MOST_TRIES):  # what is wrong in one key may hide another one
        try:
            return _model_of(data).model_validate(data, context=LATER), tuple(wrong)
        except SpecError:
            return None, tuple(wrong)
        except ValidationError as error:
            places = [keys for item in error.errors() if (keys := _written_at(data, item["loc"]))]
        if not places:
            return None, tuple(wrong)
        for keys in places:
            data = _without(data, keys)
        wrong += [".".join(keys) for keys in places]
    return None, tuple(wrong)


def _written_at(data: Mapping[str, Any], location: Sequence[int | str]) -> list[str]:
    """The longest beginning of a location that somebody wrote; lists count as a whole."""
    keys: list[str] = []
    inside: Any = data
    for name in location:
        if not isinstance(inside, Mapping) or name not in inside:
            break
        keys.append(str(name))
        inside = inside[name]
    return keys


def _without(data: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    name, rest = keys[0], keys[1:]
    inside = data.get(name)
    kept = {key: value for key, value in data.items() if key != name}
    return kept | {name: _without(inside, rest)} if rest and isinstance(inside, Mapping) else kept


def _model_of(data: Mapping[str, Any]) -> type[RunSpec]:
    return model_named(data.get("mode", DEFAULT))


def _validated(data: Mapping[str, Any], *, later: bool) -> RunSpec:
    model = _model_of(data)
    try:
        return model.model_validate(data, context=_context(data) if later else None)
    except ValidationError as error:
        raise SpecError(explain(error, model)) from error


def _context(data: Mapping[str, Any]) -> Mapping[str, str]:
    section = data.get("model")
    initial = section.get("initial") if isinstance(section, Mapping) else None
    goes_on = isinstance(initial, str) and initial.startswith("run:")
    return {**LATER, **ON_RECORD} if goes_on else LATER


def parse_json(text: str | bytes, *, later: bool = False) -> RunSpec:
    """Read a specification from its canonical JSON. It comes with every assignment of a run, and is read once.

    `later` as in `parse_toml`. What is on record may be above the bounds: whoever takes something new asks for them
    (`above_bounds`).

    Raises:
        SpecError: As `parse_data`, or it is not JSON.
    """
    return _read(text, later)


@lru_cache(maxsize=8)
def _read(text: str | bytes, later: bool) -> RunSpec:
    model = model_named(_mode_in(text))
    try:
        return model.model_validate_json(text, context={**ON_RECORD, **(LATER if later else {})})
    except ValidationError as error:
        raise SpecError(explain(error, model)) from error


def _mode_in(text: str | bytes) -> object:
    """The mode; the default one of what is no JSON object, for any model says better what is wrong with it."""
    try:
        data = from_json(text)
    except ValueError:
        return DEFAULT
    return data.get("mode", DEFAULT) if isinstance(data, dict) else DEFAULT
