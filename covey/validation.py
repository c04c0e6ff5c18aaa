"""What is wrong with what a user wrote, said so that it can be put right: the key, the value and the choices."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

_SHOWN = 80
"""Longer values are not repeated in a message, in characters."""
_CONTAINERS = (dict, Mapping, list, tuple, Sequence)


def refusal(key: str, text: str, given: object) -> ValidationError:
    """The error with which a model's own validator refuses a value that other keys rule out.

    Args:
        key: Which one, with dots, from that model on.
        text: What to do instead.
        given: Its value.
    """
    return refusals([(key, text, given)])


def refusals(wrong: Iterable[tuple[str, str, object]]) -> ValidationError:
    """The same for several keys: all are said at once."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("combination", "{text}", {"text": text}), loc=tuple(key.split(".")), input=given
        )
        for key, text, given in wrong
    ]
    return ValidationError.from_exception_data("refusal", details)


def explain(error: ValidationError, model: type[BaseModel], section: str = "") -> str:
    """Every error in one line, each with its key.

    Args:
        error: Why the model refused its data.
        model: The model.
        section: Where the data stand in the whole, for the keys: `aggregation.options`.
    """
    lines: dict[str, str] = {}
    for item in error.errors():
        names, owner = _place(model, item["loc"])
        key = ".".join(filter(None, [section, *names])) or "this"
        # Where a value may be of several types, there is an error for each.
        lines.setdefault(key, _text(dict(item), owner, key, model))
    return "; ".join(f"{key}: {text}" for key, text in lines.items())


def _text(item: Mapping[str, Any], owner: Any, key: str, model: type[BaseModel]) -> str:
    name, kind = key.rpartition(".")[2], item["type"]
    if kind == "extra_forbidden":
        known = sorted(_fields(owner))
        return f"unknown key; known keys: {', '.join(known) or 'none'}" + _meant(name, key, known, model)
    if kind == "missing":
        return "this key is required"
    unsaid = item["input"] is None or isinstance(item["input"], Mapping)
    given = "" if unsaid else json.dumps(item["input"], default=str)
    shown = f" (given: {given})" if 0 < len(given) <= _SHOWN else ""
    if kind in _TABLE_WANTED:
        return _table_wanted(key, item["input"], owner) + shown
    if kind in _LIST_WANTED:
        return _list_wanted(key, owner) + shown
    return str(item["msg"]).removeprefix("Value error, ") + shown


_TABLE_WANTED = ("model_type", "model_attributes_type", "dict_type", "mapping_type", "dataclass_type")
_LIST_WANTED = ("tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type")


def _table_wanted(key: str, given: object, owner: Any) -> str:
    """What to write where a section, or a table of options, was expected."""
    name = key.rpartition(".")[2]
    field = _fields(owner).get(name)
    inside = _container(field.annotation) if field is not None else None
    if isinstance(given, str) and "name" in _fields(inside):
        return f'write a section: [{key}] with name = "{given}"'
    return f"write a section: [{key}] with keys of its own"


def _list_wanted(key: str, owner: Any) -> str:
    field = _fields(owner).get(key.rpartition(".")[2])
    inner = [kind for kind in get_args(field.annotation) if _is_model(kind)] if field is not None else []
    return f"write a section for each: [[{key}]]" if inner else "write a list: [...]"


def _fields(model: Any) -> Mapping[str, Any]:
    """The fields of a model by the names that users write; none of what is no model."""
    return {field.alias or name: field for name, field in getattr(model, "model_fields", {}).items()}


def _meant(name: str, key: str, known: Sequence[str], model: type[BaseModel]) -> str:
    """What a user may have meant by an unknown key: one like it here, or the same one elsewhere."""
    from difflib import get_close_matches  # only a mistake needs it

    if close := get_close_matches(name, known, 1, cutoff=0.7):
        return f"; did you mean {close[0]!r}?"
    top = _fields(model)
    if "." in key and name in top:
        section = _container(top[name].annotation) is not None
        return (
            f"; did you mean the section [{name}]?"
            if section
            else f"; did you mean {name!r} above the first [section]?"
        )
    places = [f"[{section}] {name}" for section, field in top.items() if name in _fields(_container(field.annotation))]
    return f"; did you mean {' or '.join(places)}?" if places else ""


def _place(model: type[BaseModel], location: Sequence[int | str]) -> tuple[list[str], Any]:
    """A location as the user's keys, and the model or container that holds the last one.

    What pydantic adds of its own is left out: the type that was tried, and `[key]`.
    """
    names: list[str] = []
    owner: Any = None
    inside: Any = model
    for part in location:
        if inside is None or part == "[key]":
            break
        names.append(str(part))
        owner, inside = inside, _container(_inside(inside, part))
    return names, owner


def _inside(container: Any, part: int | str) -> Any:
    if _is_model(container):
        fields = container.model_fields
        field = fields.get(part) or next((f for f in fields.values() if f.alias == part), None)
        return field.annotation if field is not None else None
    inner = [kind for kind in get_args(container) if kind is not ...]
    return inner[-1] if inner else None


def _container(kind: Any) -> Any:
    """The model or container that a type is, or may be; None if its values have no parts."""
    if get_origin(kind) is Annotated:
        return _container(get_args(kind)[0])
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return next((member for member in members if _is_model(member) or get_origin(member) in _CONTAINERS), None)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
