"""What is known of a peer, and what it says of its own pace, held against what it gives. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from covey.gossip.push_sum.events import Arrived, Progressed


@dataclass
class Peer:
    """What is known of a peer."""

    is_trusted: bool = False
    """It shows signs of life: things are sent to it, and waited for."""
    is_known: bool = False
    """It was heard, or is known to be silent, since this node began or restarted."""
    was_there: bool = False
    """It was trusted when the record was made that this node went on from."""
    step: int = -1
    """It sends nothing more of steps up to this one, but what it sent up to batch `sequence`."""
    sequence: int = 0
    bound: int = -1
    """It sends nothing more of steps before this one: what it said before, and what it sent up to then has come."""
    is_finished: bool = False
    newest_step: int = -1
    """Of the batches that came from it."""
    is_refused: bool = False
    """Its newest batch cannot be. Until one of it is taken it counts as away: nobody waits for it."""
    refuses: bool = False
    """It says that this node's newest batch cannot be. Until it has that it counts as away."""

    @property
    def is_at_odds(self) -> bool:
        """Whether one of both refuses what the other gives."""
        return self.is_refused or self.refuses

    def says(self, event: Progressed, had: int) -> None:
        """It says where it is.

        Its newest batch is one that came, or the next one: an edge carries one at a time. What it says beyond that
        counts for no more, so its word binds what it gives after that one.

        Args:
            event: The word.
            had: Number of the newest batch that came.
        """
        if event.step < self.step:  # it comes late, and says what was once so
            return
        if had >= self.sequence:
            self.bound = self.step
        self.step, self.sequence, self.is_finished = event.step, min(event.sequence, had + 1), event.is_finished

    def belied(self, event: Arrived) -> str:
        """What a batch that follows those that came shows of its sender's word about its steps; empty: nothing.

        Where nobody waits, an honest node says no step before what it gave in it is on record, and a leaver gives in
        the newest one that it said. (In lock step a leaver says all steps, so that nobody waits for it.)
        """
        step = self.step if event.sequence > self.sequence else self.bound
        if event.step >= step:
            return ""
        claim = f"{event.peer} said that it gives nothing more of steps up to {step}"
        return f"{claim}, and gave batch {event.sequence} of step {event.step}"
