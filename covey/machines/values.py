"""Values of pure machines as JSON and back: events, actions, and a machine's whole state.

One table of classes says what can be written and read; fields are taken from the classes themselves. A tuple is a JSON
list; what JSON lacks is an object with `$`: the name of a class, or one of `set`, `list`, `map`, `float` and `bytes`.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

KIND = "$"
_PLAIN: Mapping[type, Callable[[Any], str]] = {
    str: encode_basestring_ascii,
    int: repr,
    bool: lambda value: "true" if value else "false",
    type(None): lambda value: "null",
}
"""What is the same in JSON, and how it is written."""
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class ValueTable:
    """The classes of one kind of machine.

    Args:
        modules: Where they are defined; all that these modules define can be written and read.
        longest_bytes: Of a byte string that is written; a longer one is written as empty, where a machine does not look
            into it.

    Raises:
        ValueError: Two classes have one name.
    """

    def __init__(self, *modules: ModuleType, longest_bytes: int | None = None) -> None:
        self._longest_bytes, self._modules = longest_bytes, modules
        self._classes: dict[str, type] = {}
        for module in modules:
            for name, cls in inspect.getmembers(module, inspect.isclass):
                if cls.__module__ == module.__name__ and self._classes.setdefault(name, cls) is not cls:
                    raise ValueError(f"two classes of one machine are named {name!r}")

    @functools.cached_property
    def code_sha256(self) -> str:
        """SHA-256 (16 hex digits of it) of the modules' source: two machines with the same one do the same."""
        digest = hashlib.sha256()
        for module in self._modules:
            digest.update(inspect.getsource(module).encode())
        return digest.hexdigest()[:16]

    def to_json(self, value: object) -> Any:
        """A value as plain JSON values.

        Raises:
            TypeError: It holds something that has no place in the table.
        """
        kind = type(value)
        if self.has(kind):
            fields = {name: item if type(item) in _PLAIN else self.to_json(item) for name, item in vars(value).items()}
            return {KIND: kind.__name__, **fields}
        match value:
            case None | bool() | int() | str():
                return value
            case float():
                return value if math.isfinite(value) else {KIND: "float", "value": repr(value)}
            case tuple():
                return [self.to_json(item) for item in value]
            case bytes():
                return self._bytes(value)
            case list():
                return {KIND: "list", "items": [self.to_json(item) for item in value]}
            case set() | frozenset():
                return {KIND: "set", "items": sorted(map(self.to_json, value), key=repr)}
            case Mapping():
                return self._mapping(value)
        raise TypeError(f"{kind.__module__}.{kind.__name__} is not in the table of the machine's classes")

    def has(self, kind: type) -> bool:
        """Whether it is one of the machine's classes."""
        return self._classes.get(kind.__name__) is kind

    def _bytes(self, value: bytes) -> Any:
        is_left_out = self._longest_bytes is not None and len(value) > self._longest_bytes
        return {KIND: "bytes", "base64": "" if is_left_out else base64.b64encode(value).decode()}

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        if KIND not in value and all(isinstance(key, str) for key in value):
            return {key: self.to_json(item) for key, item in value.items()}
        return {KIND: "map", "items": [[self.to_json(key), self.to_json(item)] for key, item in value.items()]}

    def from_json(self, value: Any) -> Any:
        """The inverse of `to_json`; a mapping comes back as a dict, a frozen set as a set.

        Raises:
            ValueError: It is not what `to_json` gives; the message says what is wrong.
        """
        if isinstance(value, list):
            return tuple(self.from_json(item) for item in value)
        if not isinstance(value, dict):
            return value
        if KIND not in value:
            return {key: self.from_json(item) for key, item in value.items()}
        fields = {name: self.from_json(item) for name, item in value.items() if name != KIND}
        kind = value[KIND]
        if not isinstance(kind, str) or kind not in (_READERS.keys() | self._classes.keys()):
            raise ValueError(f"no class named {kind!r} is in the table")
        if kind in _READERS:
            return _read_builtin(kind, fields)
        return _make(self._classes[kind], fields)


class TextWriter:
    """Writes values that belong together, as one event and its actions, as compact JSON.

    The text is that of `ValueTable.to_json`, without the values in between. An object that comes again, as the message
    in an event does in the action that passes it on, is not written twice: nothing may change meanwhile.

    Args:
        table: The machine's classes.
    """

    def __init__(self, table: ValueTable) -> None:
        self._table = table
        self._written: dict[int, str] = {}

    def text(self, value: object) -> str:
        """A value as JSON. Raises TypeError as `ValueTable.to_json`."""
        kind = type(value)
        if (plain := _PLAIN.get(kind)) is not None:
            return plain(value)
        if self._table.has(kind):
            return self._object(kind.__name__, value)
        if kind is float and math.isfinite(value):  # type: ignore[arg-type]
            return repr(value)
        if kind is tuple:
            return f"[{','.join(map(self.text, value))}]"  # type: ignore[call-overload]
        return _ENCODER.encode(self._table.to_json(value))

    def _object(self, name: str, value: object) -> str:
        known = self._written.get(id(value))
        if known is None:
            fields = "".join([f",{_key(field)}:{self.text(item)}" for field, item in vars(value).items()])
            known = self._written[id(value)] = f'{{"{KIND}":"{name}"{fields}}}'
        return known


@functools.cache
def _key(name: str) -> str:
    return encode_basestring_ascii(name)


_READERS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "float": ("value", float),
    "bytes": ("base64", functools.partial(base64.b64decode, validate=True)),
    "list": ("items", list),
    "set": ("items", set),
    "map": ("items", dict),
}


def _read_builtin(kind: str, fields: dict[str, Any]) -> Any:
    name, read = _READERS[kind]
    if set(fields) != {name}:
        raise ValueError(f"a {kind} has just {name!r}, and not {sorted(fields)}")
    try:
        return read(fields[name])
    except TypeError as error:
        raise ValueError(f"this is no {kind}: {error}") from error


def _make(cls: type, fields: dict[str, Any]) -> Any:
    if not dataclasses.is_dataclass(cls):
        instance: Any = object.__new__(cls)
        vars(instance).update(fields)
        return instance
    adapters = _field_adapters(cls)
    if unknown := sorted(set(fields) - set(adapters)):
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}")
    for name, value in fields.items():
        try:
            adapters[name].validate_python(value, strict=True)
        except ValidationError as error:
            raise ValueError(f"{cls.__name__}.{name}: {error.errors()[0]['msg']}") from error
    try:
        return cls(**fields)
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from error


@functools.cache
def _field_adapters(cls: type) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(cls)
    return {field.name: TypeAdapter(hints[field.name]) for field in dataclasses.fields(cls)}
