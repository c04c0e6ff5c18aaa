"""A data directory remembers at which address its models last: without them no run goes on.

The address remembers of which record they are, as `record.json` does in the data directory
(`covey.coordinator.backup.ownership`): two coordinators at one address would delete each other's models.
"""

from __future__ import annotations

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


def noted_address(data_dir: Path) -> Address | None:
    """Where the models of a data directory last; None: there.

    Raises:
        Conflict: The note cannot be read.
    """
    path = data_dir / FILE
    try:
        return Address(_Note.model_validate_json(path.read_bytes()).address)
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        problem = explain(error, _Note) if isinstance(error, ValidationError) else str(error)
        raise Conflict(
            f"{path} cannot be read ({problem}): it should say where the models are. Start once with it "
            "deleted and --artifacts URL, and it is made again"
        ) from error


def take_address(data_dir: Path, url: str | None, record: str) -> Address | None:
    """The address of a coordinator that starts, which is its record's from now on. Blocking.

    Args:
        data_dir: Its data directory.
        url: What it was given; None: nothing.
        record: The record's id.

    Raises:
        Conflict: The models are elsewhere, or others' are there; nothing was changed.
        Obstructed: It cannot be reached.
    """
    known = noted_address(data_dir)
    if url is None:
        if known is None:
            return None
        raise Conflict(
            f"the models of {data_dir} are at {known.url}: give --artifacts {known.url} (COVEY_ARTIFACTS). To have "
            "them on this disk again, make a backup with that, and restore it into another folder"
        )
    address = Address(url)
    address.claim(record, new=known is None)
    path = data_dir / FILE
    with disk_errors(path):
        write_private(path, _Note(address=url).model_dump_json().encode())
    return address
