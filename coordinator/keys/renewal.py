"""The coordinator's own certificate, renewed while it runs: whoever connects from then on is shown the new one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import structlog

from covey.coordinator.keys.keys import Keys, renewed, write_admin_identity
from covey.errors import CoveyError
from covey.wire.identities.identity import Identity

log = structlog.get_logger(room="coordinator")
CHECK_S = 6 * 3600.0


class OwnCertificate:
    """The newest keys of a data directory."""

    def __init__(self, data_dir: Path, keys: Keys) -> None:
        self._data_dir, self.keys = data_dir, keys

    @property
    def identity(self) -> Identity:
        """What listeners show now."""
        return self.keys.server

    def renew_when_due(self, address: str, now: float) -> bool:
        """Renew the own certificate and the local admin's, if they end soon; whether the own one was. Blocking.

        Args:
            address: The main listener, for the admin's identity.
            now: Unix time in seconds.
        """
        before = self.identity.certificate_pem
        keys = renewed(self._data_dir, self.keys.authority, self.keys.signing_key, now)
        write_admin_identity(self._data_dir, keys, address, now)
        self.keys = keys
        return keys.server.certificate_pem != before

    async def keep(self, address: str) -> None:
        """Look every few hours until cancelled; `address` as in `renew_when_due`."""
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                if await asyncio.to_thread(self.renew_when_due, address, time.time()):
                    log.info("going on with a new certificate", expires_at=self.identity.expires_at)
            except (CoveyError, OSError) as error:
                log.error("the certificate could not be renewed; trying again", error=str(error), retry_s=CHECK_S)
