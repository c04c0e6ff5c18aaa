"""Which coordinator is meant, and where it listens."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

from covey.client.errors import Unreachable

PROBE_S = 2.0


@dataclass(frozen=True)
class Target:
    """A coordinator: by its data directory on this machine, or by address and the caller's identity."""

    data_dir: Path | None
    server: str | None = None
    identity: Path | None = None

    def address(self) -> str | None:
        """Where it listens, `host:port`; None if no coordinator runs on the data directory."""
        return self.server if self.data_dir is None else announced_address(self.data_dir)

    def identity_folder(self) -> Path:
        """The folder with the caller's key and certificate."""
        if self.data_dir is not None:
            return self.data_dir / "admin"
        return self.identity or Path()

    def not_running(self) -> Unreachable:
        """The error for a coordinator that is not running."""
        return Unreachable(
            f"no coordinator is running on {self.data_dir}; "
            f"start it with: covey coordinator start --data-dir {self.data_dir}"
        )


def announced_address(data_dir: Path) -> str | None:
    """Where the coordinator of a data directory listens, as seen from this machine; None if none runs."""
    try:
        listen = str(json.loads((data_dir / "coordinator.json").read_text())["listen"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    host, _, port = listen.rpartition(":")
    address = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host), int(port)
    try:
        # The file outlives a coordinator that was killed; its port does not.
        socket.create_connection((address[0].strip("[]"), address[1]), PROBE_S).close()
    except OSError:
        return None
    return f"{address[0]}:{address[1]}"
