"""What an operation finds around it in the child program."""

from __future__ import annotations

from collections.abc import Callable

import torch

from covey.worker.program.context import Contexts


def _nothing(*_: object) -> None:
    """Nobody gives the job up, and nobody hears of its progress."""


class Host:
    """The worker, as its operations see it.

    Args:
        device: Where to compute.
        check_cancelled: Called in every step; raises if the daemon has given the job up.
        report: Takes the progress of the job, as its operation declares it.
        log_name: What people call the log of this program.
        confinement: What it cannot read, for people; empty: nothing was to be hidden.

    Attributes:
        contexts: The runs that are held warm.
    """

    def __init__(
        self,
        device: torch.device,
        check_cancelled: Callable[[], object] = _nothing,
        report: Callable[[object], object] = _nothing,
        *,
        log_name: str = "",
        confinement: str = "",
    ) -> None:
        self.device, self.contexts = device, Contexts(device)
        self.check_cancelled, self.report = check_cancelled, report
        self.confinement, self._log_name = confinement, log_name

    def with_log(self, text: str) -> str:
        """What went wrong, and where its whole traceback is."""
        return f"{text}; the whole traceback is in {self._log_name}" if self._log_name else text
