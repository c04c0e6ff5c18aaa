"""What a node is told, and what is put on record, where the two sides speak different versions of the messages."""

from __future__ import annotations

from covey import __version__
from covey import messages as msg

WIRE_REFUSED = "wire-version-refused"
"""Kind of the event of a node that speaks another version; its detail is `{"node": N, "coordinator": M}`."""


def version_refusal(hello: msg.Hello) -> str:
    """What a node is told that speaks another version of the messages."""
    # A node from before versions were said says 0.
    older = "node" if hello.wire < msg.WIRE else "coordinator"
    return (
        f"this node (Covey {hello.version[:50]}) speaks version {hello.wire or 1} of the messages between node and "
        f"coordinator, the coordinator (Covey {__version__}) version {msg.WIRE}: upgrade the {older}"
    )
