"""What a worker is given of its daemon's, and what not: folders that it cannot read, memory, environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KEPT = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP", "VIRTUAL_ENV"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "FAKETIME", "XDG_CACHE_HOME"),
        *("COVEY_DATA", "COVEY_FAULTS", "COVEY_FEDERATION"),
    )
)
"""Variables of the daemon's environment that its worker has too."""
KEPT_PREFIXES = (
    *("LC_", "PYTHON", "COVERAGE_", "MALLOC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_"),
    *("TORCH", "PYTORCH", "CUDA", "CUBLAS", "CUDNN", "NVIDIA", "NCCL", "HIP_", "HSA_", "ROCM", "ROCR"),
)


@dataclass(frozen=True)
class Confinement:
    """Of one worker.

    Attributes:
        hidden: Folders that it cannot read, where the system has a way to see to that.
        memory_bytes: Most memory of its own; None: as much as there is.
        environment: Variables that it has beside the usual ones.
        folders: Where it works; made before it starts, because beside hidden ones it may be unable to use later ones.
    """

    hidden: tuple[Path, ...] = ()
    memory_bytes: int | None = None
    environment: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()

    def make_folders(self) -> None:
        """Make the folders that are missing."""
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)

    def arguments(self) -> list[str]:
        """For the worker's command line."""
        hidden = [part for folder in self.hidden for part in ("--hide", str(folder))]
        return hidden + (["--memory-bytes", str(self.memory_bytes)] if self.memory_bytes is not None else [])

    def of(self, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The part of an environment that it has."""
        return {
            name: value
            for name, value in environment.items()
            if name in KEPT or name.startswith(KEPT_PREFIXES) or name in self.environment
        }
