"""A data directory remembers at which address its models last: without them no run goes on.

The address remembers of which record they are, as `record.json` does in the data directory
(`covey.coordinator.backup.ownership`): two coordinators at one address would delete each other's models. A backup and
a copy have the record's id, too. So each start calls itself by a new random name, there and in its data directory, and
takes the address only from a name that it knows: that of the start before. A backup knows none.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from covey.errors import Conflict
from covey.storage.files.address import Address
from covey.storage.files.spool import disk_errors
from covey.validation import explain
from covey.wire.identities.authority import write_private

FILE = "artifacts.json"


class _Note(BaseModel):
    """What `artifacts.json` in a data directory holds."""

    model_config = ConfigDict(strict=True, frozen=True)

    address: str
    """Empty: none yet."""
    holders: tuple[str, ...] = ()
    """By which of these names the address knows this directory: one start may have ended before it got there."""


def noted_address(data_dir: Path) -> Address | None:
    """Where the models of a data directory last; None: there.

    Raises:
        Conflict: The note cannot be read.
    """
    address = _read(data_dir).address
    return Address(address) if address else None


def _read(data_dir: Path) -> _Note:
    path = data_dir / FILE
    try:
        return _Note.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _Note(address="")
    except (OSError, ValidationError) as error:
        problem = explain(error, _Note) if isinstance(error, ValidationError) else str(error)
        raise Conflict(
            f"{path} cannot be read ({problem}): it should say where the models are. Start once with it "
            "deleted and --artifacts URL, and it is made again"
        ) from error


def _write(data_dir: Path, note: _Note) -> None:
    path = data_dir / FILE
    with disk_errors(path):
        write_private(path, note.model_dump_json().encode())


def take_address(data_dir: Path, url: str | None, record: str) -> Address | None:
    """The address of a coordinator that starts, which is its record's from now on. Blocking.

    Args:
        data_dir: Its data directory.
        url: What it was given; None: nothing.
        record: The record's id.

    Raises:
        Conflict: The models are elsewhere, or others' are there; nothing was changed.
        Obstructed: It cannot be reached.
        Fenced: Another one took it at the same moment.
    """
    known = _read(data_dir)
    if url is None:
        if not known.address:
            return None
        raise Conflict(
            f"the models of {data_dir} are at {known.address}: give --artifacts {known.address} (COVEY_ARTIFACTS). To "
            "have them on this disk again, make a backup with that, and restore it into another folder"
        )
    address = Address(url)
    before, me = address.holder(record, new=not known.address), secrets.token_hex(16)
    if before and before not in known.holders:
        raise Conflict(
            f"{url} is another data directory's than {data_dir}: a backup of it was restored, or it was copied. Each "
            "would delete the models of the other. Give this one an address, or a prefix, of its own: a restored "
            "backup is whole, and its models are sent there. Only if the other one is gone for good, and "
            f'this one is to have {url}, let {{"record": "{record}"}} be all that is in {url}/{FILE}'
        )
    _write(data_dir, known.model_copy(update={"holders": (before, me)}))
    address.claim(record, me)
    _write(data_dir, _Note(address=url, holders=(me,)))
    return address
