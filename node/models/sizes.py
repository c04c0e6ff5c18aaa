"""The sizes that models and bodies of a run may have on the wire: one, or where they are encoded any up to that."""

from __future__ import annotations

from covey.artifact import Artifact
from covey.errors import InvalidUpdate


def require_size(offered: Artifact, sizes: range, what: str) -> None:
    """Check what a peer offers before anything is allocated for it.

    Args:
        offered: The artifact as the peer says it is.
        sizes: The sizes in bytes that are possible.
        what: What it is, for people.

    Raises:
        InvalidUpdate: It has another size, or its table of chunks does not go with its size.
    """
    if offered.size_bytes not in sizes:
        known = f"{sizes[-1]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        raise InvalidUpdate(f"{what} of {offered.size_bytes} bytes; this run's have {known}")
    offered.validate(sizes[-1])
