"""Keys that a user wrote and that the run's mode does not read: refused, with what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from covey.errors import SpecError
from covey.spec.run import RunSpec


def written_keys(data: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """The keys of a specification, with dots, as somebody wrote it; lists and what is in them are one key."""
    for name, value in data.items():
        key = f"{before}{name}"
        yield key
        if isinstance(value, Mapping):
            yield from written_keys(value, f"{key}.")


def chosen_keys(spec: RunSpec, data: Mapping[str, Any]) -> tuple[str, ...]:
    """The same without those whose value is the default: a whole specification, read back from a run, has them all."""
    default = type(spec).model_validate({"name": spec.name, "task": {"name": spec.task.name}, "mode": spec.mode})
    plain, usual = (section.model_dump(mode="json", by_alias=True) for section in (spec, default))
    return tuple(key for key in written_keys(data) if _at(plain, key) != _at(usual, key))


def _at(data: Mapping[str, Any], key: str) -> Any:
    value: Any = data
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def refuse_unread(spec: RunSpec, keys: tuple[str, ...]) -> None:
    """Refuse keys that runs of this mode do not read.

    Raises:
        SpecError: Each of them, and what to write instead.
    """
    if unread := list(unread_by_mode(spec, keys)):
        raise SpecError("; ".join(f"{key}: {text}" for key, text in unread))


def unread_by_mode(spec: RunSpec, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Of some keys those that runs of this mode do not read, each with what to write instead."""
    return ((key, text) for key, text in unread_in(type(spec), spec.mode, keys) if key in spec.unread)


def unread_in(model: type[RunSpec], mode: str, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The same of a specification that has other faults, too: its mode's model is known all the same."""
    where, instead = f'a run of mode "{mode}" does not read it', dict.fromkeys(model.ignored, "leave it out")
    instead |= model.unread
    return ((key, f"{where}; {instead[key]}") for key in keys if key in instead)
