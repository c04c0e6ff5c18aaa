"""Whether an error says that there is no memory left, and what to do about it, in words."""

from __future__ import annotations

import errno
import os
import resource

import torch

from covey.errors import OutOfMemory

_SAID = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")
"""In the messages of RuntimeErrors of torch, on the CPU."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is what Python, torch or the system raise where there is no memory left."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _SAID)


def out_of_memory(what: str, error: BaseException, place: str = "") -> OutOfMemory:
    """The error that says so.

    Args:
        what: What was being done.
        error: One of which `is_out_of_memory` holds.
        place: Where in the user's code; empty: not known.
    """
    lines = str(error).strip().splitlines()
    text = f"{what}: no memory left" + (f" ({place})" if place else "") + (f": {lines[0]}" if lines else "")
    return OutOfMemory(f"{text}; {_allowed()}, or choose a smaller training.batch_size or model")


def _allowed() -> str:
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if limit != resource.RLIM_INFINITY:
        return (
            f"this worker may have {limit / 2**30:.3g} GiB: raise that ([limits] memory_gib in a node's node.toml, "
            "--worker-memory of a coordinator)"
        )
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"this machine has {whole / 2**30:.3g} GiB, and no limit is set for the worker: give it more"
