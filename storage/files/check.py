"""Whether the files that a record needs are there and whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from covey.artifact import artifact_of, artifact_of_file
from covey.storage.files.address import Address


def check_files(folder: Path, needed: Callable[[], set[str]], address: Address | None = None) -> list[str]:
    """Read every file that the record needs, and hash it again.

    Args:
        folder: Where they are, each under its digest.
        needed: Gives the digests (`Store.referenced_digests`). It is asked again about those with a problem: a
            coordinator at work may have let them go meanwhile.
        address: Where they last, if that is elsewhere: what is there is read, too, and need not be in the folder.

    Returns:
        One line for each that is gone, damaged or unreadable, by digest.
    """
    distant = address.sizes() if address is not None else {}
    wrong = {digest: line for digest in sorted(needed()) if (line := _problem(folder / digest, distant, address))}
    still = needed() if wrong else set()
    return [line for digest, line in wrong.items() if digest in still]


def _problem(path: Path, distant: Mapping[str, int], address: Address | None) -> str:
    problem = "" if path.name in distant and not path.exists() else _file_problem(path)
    if problem or address is None or path.name not in distant:
        return problem
    if artifact_of(address.chunks(path.name)).digest != path.name:
        return f"file {path.name} is damaged at {address.url}: its content has another digest"
    return ""


def _file_problem(path: Path) -> str:
    try:
        digest = artifact_of_file(path).digest
    except FileNotFoundError:
        return f"file {path.name} is gone"
    except OSError as error:
        return f"file {path.name} cannot be read: {error.strerror}"
    return "" if digest == path.name else f"file {path.name} is damaged: its content has another digest"
