"""Whether the files that a record needs are there and whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from covey.artifact import artifact_of_file


def check_files(folder: Path, needed: Callable[[], set[str]]) -> list[str]:
    """Read every file that the record needs, and hash it again.

    Args:
        folder: Where they are, each under its digest.
        needed: Gives the digests (`Store.referenced_digests`). It is asked again about those with a problem: a
            coordinator at work may have let them go meanwhile.

    Returns:
        One line for each that is gone, damaged or unreadable, by digest.
    """
    wrong = {digest: line for digest in sorted(needed()) if (line := _file_problem(folder / digest))}
    still = needed() if wrong else set()
    return [line for digest, line in wrong.items() if digest in still]


def _file_problem(path: Path) -> str:
    try:
        digest = artifact_of_file(path).digest
    except FileNotFoundError:
        return f"file {path.name} is gone"
    except OSError as error:
        return f"file {path.name} cannot be read: {error.strerror}"
    return "" if digest == path.name else f"file {path.name} is damaged: its content has another digest"
