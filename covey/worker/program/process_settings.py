"""What all runs of a worker share, and a task's code may change: put back after each job; the next one is clean.

What a task's module does when it is imported stays, as long as the process: it is imported once.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

import structlog
import torch

log = structlog.get_logger(room="worker")


@dataclass(frozen=True)
class ProcessSettings:
    """Settings of torch and of the process that hold for whatever runs next."""

    dtype: torch.dtype
    """`torch.set_default_dtype`."""
    device: torch.device
    """`torch.set_default_device`."""
    gradients: bool
    """`torch.set_grad_enabled`."""
    folder: str
    """`os.chdir`."""

    @classmethod
    def now(cls) -> ProcessSettings:
        """As they are."""
        return cls(torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(), _folder())

    def put_back(self) -> None:
        """Make them so again."""
        torch.set_default_dtype(self.dtype)
        if torch.get_default_device() != self.device:
            torch.set_default_device(self.device)
        torch.set_grad_enabled(self.gradients)
        with contextlib.suppress(OSError):  # it is gone
            os.chdir(self.folder or ".")


def _folder() -> str:
    """The current folder; empty: it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


class Kept:
    """The settings with which each job begins."""

    def __init__(self) -> None:
        self._settings = ProcessSettings.now()

    def keep(self) -> None:
        """Those of now, after an import."""
        self._settings = ProcessSettings.now()

    def put_back(self) -> None:
        """After a job."""
        if (changed := ProcessSettings.now()) != self._settings:
            names = sorted(name for name, value in vars(changed).items() if value != vars(self._settings)[name])
            log.warning("settings of the whole process that a task changed are put back", settings=names)
            self._settings.put_back()


KEPT = Kept()
"""This process's."""
