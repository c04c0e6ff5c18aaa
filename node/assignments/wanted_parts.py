"""Which parts a node sends: those that its assignment names."""

from __future__ import annotations

from covey import messages as msg
from covey.errors import PolicyError
from covey.layout import Layout


def wanted_parts(assignment: msg.Assignment) -> tuple[msg.WantedPart, ...]:
    """The parts to send, in order.

    Raises:
        PolicyError: The assignment names none.
    """
    if not assignment.wanted:
        raise PolicyError("the assignment does not say which parts of an update to send; upgrade the coordinator")
    return assignment.wanted


def state_bytes(layout: Layout) -> int:
    """Size in bytes of each file of local state: a float32 vector as long as the model's trainable parameters."""
    return 4 * layout.part("model").numel
