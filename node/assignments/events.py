"""What the machine of assignments is told, and what it asks for. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from covey import messages as msg

Stage = Literal["assigned", "has-base", "trained", "offered", "settled"]
"""How far the work of an assignment is: begun; its files are here; its update is durable; the update is offered; the
coordinator has it, or refused it for good."""
Answer = msg.DownloadGrant | msg.ModelElsewhere | msg.UploadGrant | msg.Receipt | msg.Refusal

# -- what happens ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assigned:
    """The coordinator asks for work, perhaps again."""

    assignment: msg.Assignment


@dataclass(frozen=True)
class Cancelled:
    """The coordinator does not want a round any more, or (round 0) anything of a run, which has ended."""

    run: str
    round: int


@dataclass(frozen=True)
class Answered:
    """The coordinator answered the work in progress."""

    answer: Answer


@dataclass(frozen=True)
class Lost:
    """The session was lost: what was asked in it may have been overheard, or its answer."""


@dataclass(frozen=True)
class Advanced:
    """The work in progress is at this stage now; `update` is its digest, from `trained` on."""

    stage: Stage
    update: str = ""


@dataclass(frozen=True)
class Ended:
    """The work in progress has ended: done, failed or stopped."""


@dataclass(frozen=True)
class ReportDue:
    """It is time to say again what is waiting."""


Event = Assigned | Cancelled | Answered | Lost | Advanced | Ended | ReportDue

# -- what is to be done ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Begin with this; no other work is in progress."""

    assignment: msg.Assignment


@dataclass(frozen=True)
class Stop:
    """End the work in progress as soon as it can be; `Ended` follows."""


@dataclass(frozen=True)
class Renew:
    """The work in progress was assigned again: this is what is asked now."""

    assignment: msg.Assignment


@dataclass(frozen=True)
class Tell:
    """Hand an answer to the work in progress."""

    answer: Answer


@dataclass(frozen=True)
class AskAgain:
    """The work in progress is to ask again, or to offer again, if it waits for an answer."""


@dataclass(frozen=True)
class Drop:
    """This will not be begun: it was cancelled, or newer work of its run took its place."""

    assignment: msg.Assignment


@dataclass(frozen=True)
class Forget:
    """The run has ended, and nothing of it is in progress: its state and files are of no more use."""

    run: str


@dataclass(frozen=True)
class Send:
    """Send a message."""

    message: msg.NodeMessage


Action = Start | Stop | Renew | Tell | AskAgain | Drop | Forget | Send
