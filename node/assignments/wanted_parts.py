"""Which parts a node sends: those that its assignment names."""

from __future__ import annotations

from covey import messages as msg
from covey.layout import Layout


def wanted_parts(assignment: msg.Assignment, layout: Layout) -> tuple[msg.WantedPart, ...]:
    """The parts to send, in order."""
    return assignment.wanted or _of_layout(layout)


def state_bytes(layout: Layout) -> int:
    """Size in bytes of each file of local state: a float32 vector as long as the model's trainable parameters."""
    return 4 * layout.part("model").numel


def _of_layout(layout: Layout) -> tuple[msg.WantedPart, ...]:
    """For a coordinator that names no parts."""
    sizes = {"model": 4 * layout.part("model").numel, "buffers": layout.part("buffers").nbytes}
    return tuple(msg.WantedPart(name, "", size, exact=False) for name, size in sizes.items() if size)
