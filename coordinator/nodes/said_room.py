"""What a node has for runs, as its hello says."""

from __future__ import annotations

from covey import messages as msg
from covey.machines.places import Room


def room_of(hello: msg.Hello) -> Room:
    """How many runs it takes, and with what memory; of its GPU that is known once its worker is ready.

    The device is then `cpu` or `cuda (NAME)`; before, it is what the node's operator asked for.
    """
    is_ready = hello.device == "cpu" or "(" in hello.device
    return Room(hello.max_runs, hello.memory_bytes, hello.gpu_memory_bytes if is_ready else None)
