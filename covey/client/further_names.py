"""A model file as its users load it: each tensor under all of its names.

A version's file holds tied weights once, and says in its header which further names they have. `load_state_dict` wants
all of them, and safetensors lets no two names share bytes; so an exported file has them twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import IO, Any

from covey.errors import CorruptChunk
from covey.layout import ALIASES, METADATA, safetensors_header

MAX_HEADER_BYTES = 100_000_000
"""The longest header that safetensors reads."""
COPY_BYTES = 1 << 20
_LENGTH_BYTES = 8


def write_with_all_names(chunks: Iterator[bytes], file: IO[bytes]) -> None:
    """Write what comes; a model file with further names has these as tensors of their own behind the others.

    Args:
        chunks: The file as it is kept. What is no safetensors file is written as it is.
        file: Empty; can be read by position as well (as those of `tempfile.mkstemp` can).

    Raises:
        CorruptChunk: The further names do not belong to tensors of the file.
    """
    header, rest = _split(chunks)
    entries = _entries(header)
    aliases = _aliases(entries)
    if not aliases:
        file.write(header)
        _pass_on(rest, file)
        return
    try:
        start = file.write(_renamed(entries, aliases))
        _pass_on(rest, file)
        for name in aliases.values():
            _copy(file, start, entries[name]["data_offsets"])
    except (KeyError, TypeError, IndexError) as error:
        raise CorruptChunk("the header of the model file is not whole; export another version") from error


def _split(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """What comes first: the header where there is one, else whatever; and the rest."""
    head = bytearray()
    for data in chunks:
        head += data
        end = _LENGTH_BYTES + int.from_bytes(head[:_LENGTH_BYTES], "little")
        if len(head) >= _LENGTH_BYTES and (len(head) >= end or end > MAX_HEADER_BYTES):
            return bytes(head[:end]), _after(bytes(head[end:]), chunks)
    return bytes(head), iter(())


def _after(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from chunks


def _entries(header: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(header[_LENGTH_BYTES:])
    except ValueError:  # raw values of a part, not a model file
        return {}
    return entries if isinstance(entries, dict) else {}


def _aliases(entries: dict[str, Any]) -> dict[str, str]:
    try:
        aliases: dict[str, str] = json.loads(entries[METADATA][ALIASES])
        return {alias: name for alias, name in aliases.items() if name in entries and alias not in entries}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def _renamed(entries: dict[str, Any], aliases: dict[str, str]) -> bytes:
    about = {key: value for key, value in entries[METADATA].items() if key != ALIASES}
    tensors = {name: entry for name, entry in entries.items() if name != METADATA}
    end = max(entry["data_offsets"][1] for entry in tensors.values())
    for alias, name in aliases.items():
        first, last = tensors[name]["data_offsets"]
        tensors[alias] = {**tensors[name], "data_offsets": [end, end + last - first]}
        end += last - first
    return safetensors_header({METADATA: about, **tensors})


def _pass_on(chunks: Iterator[bytes], file: IO[bytes]) -> None:
    for data in chunks:
        file.write(data)


def _copy(file: IO[bytes], start: int, offsets: list[int]) -> None:
    """Append a tensor's bytes once more."""
    file.flush()
    at, end = start + offsets[0], start + offsets[1]
    while at < end:
        data = os.pread(file.fileno(), min(COPY_BYTES, end - at), at)
        if not data:
            raise CorruptChunk("the header of the model file tells of more than there is; export another version")
        file.write(data)
        at += len(data)
