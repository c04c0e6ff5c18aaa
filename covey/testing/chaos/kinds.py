"""The kinds of faults: what each is about, whom it strikes, how long it lasts, and how often it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        text: For people.
        strikes: A coordinator, a node, any of both, or everything at once.
        least_s: The shortest time until what was done is undone.
        most_s: The longest.
        weight: How often it is drawn, beside the others.
        loses_state: Whether a node forgets what a method keeps on it: such a run does not owe the undisturbed model.
    """

    text: str
    strikes: Literal["coordinator", "node", "any", "all"]
    least_s: float
    most_s: float
    weight: float = 1.0
    loses_state: bool = False


KINDS = {
    "kill-coordinator": Kind("kill -9, and started again", "coordinator", 0.0, 2.0, 2.0),
    "kill-node": Kind("kill -9, and started again", "node", 0.0, 3.0, 2.0),
    "kill-worker": Kind("kill -9 of a daemon's worker", "any", 0.0, 0.0, 2.0),
    "kill-everything": Kind("kill -9 of coordinator and nodes at once, as a power cut", "all", 0.0, 1.0, 0.5),
    "suspend": Kind("SIGSTOP of a daemon and its worker, then SIGCONT", "any", 0.2, 6.0, 2.0),
    "suspend-everything": Kind("SIGSTOP of everybody at once, then SIGCONT", "all", 0.2, 6.0, 0.5),
    "cut-link": Kind("a node's connections are reset, and new ones too until it is over", "node", 0.0, 4.0, 2.0),
    "cut-transfer": Kind("a node's connection is reset after some more bytes", "node", 0.0, 0.0, 2.0),
    "stall-link": Kind("nothing passes in one direction of a node's link, which stays open", "node", 0.2, 5.0),
    "slow-link": Kind("each piece in one direction of a node's link is late by up to 0.3 s", "node", 1.0, 5.0),
    "terminate-twice": Kind("SIGTERM, and once more a moment later; started again", "any", 0.0, 1.0),
    "interrupt-and-terminate": Kind("SIGINT, and SIGTERM a moment later; started again", "any", 0.0, 1.0),
    "lose-data": Kind(
        "kill -9 of a node, and all that it has kept but its identity is gone", "node", 0.0, 1.0, loses_state=True
    ),
    "cut-in-halves": Kind("two halves of the nodes reach each other no more until it is over", "all", 1.0, 15.0, 0.5),
    "full-disk": Kind("no file of a node may grow (RLIMIT_FSIZE, as a quota)", "node", 1.0, 8.0),
}
FEDERATED = tuple(name for name in KINDS if name not in ("cut-in-halves", "full-disk"))
"""Those for nodes and their coordinator."""
AMONG_PEERS = (
    "kill-node",
    "kill-worker",
    "kill-everything",
    "suspend",
    "cut-link",
    "cut-transfer",
    "stall-link",
    "slow-link",
    "terminate-twice",
    "cut-in-halves",
    "full-disk",
)
"""Those for gossip nodes."""
