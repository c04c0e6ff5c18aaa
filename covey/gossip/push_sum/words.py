"""What a peer says of its own pace, held against what it gives. Pure."""

from __future__ import annotations

from covey.gossip.push_sum.events import Arrived


def belied(event: Arrived, step: int, sequence: int) -> str:
    """What a batch shows of its sender's word about its steps; empty: nothing.

    Where nobody waits, an honest node says no step before what it gave in it is on record, and a leaver gives in the
    newest one that it said. (In lock step a leaver says all steps, so that nobody waits for it.)

    Args:
        event: The batch.
        step: The sender said that it gives nothing more of steps up to this one,
        sequence: but what it gave up to this batch.
    """
    if event.step >= step or event.sequence <= sequence:
        return ""
    claim = f"{event.peer} said that it gives nothing more of steps up to {step}"
    return f"{claim}, and gave batch {event.sequence} of step {event.step}"
