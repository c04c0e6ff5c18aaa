"""A node's own certificate where no coordinator renews it: one that is issued again counts without a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from covey.errors import IdentityError
from covey.wire.identities.identity import Identity

log = structlog.get_logger(room="node")
LOOK_S = 5.0
DAY_S = 86400.0
WARN_BEFORE_S = 30 * DAY_S
SAY_AGAIN_S = DAY_S
FILE = "tls.crt"


class OwnCertificate:
    """What an identity's folder has, looked at again and again.

    Args:
        folder: The identity's.
        identity: What was loaded from there.
        on_new: Told of each new one.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        on_new: Callable[[Identity], object] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.newest = identity
        """What connections from now on show."""
        self._folder, self._on_new, self._clock = folder, on_new, clock
        self._passed_over = b""
        self._said_at = -SAY_AGAIN_S
        self._said_expired = False

    def look(self) -> None:
        """Take a certificate that was issued again, and say when the present one ends soon, or has. Blocking."""
        reissued = self._reissued()
        if reissued is not None:
            self.newest, self._said_at, self._said_expired = reissued, -SAY_AGAIN_S, False
            log.info("going on with a new certificate", expires_at=_day(reissued.expires_at))
            self._on_new(reissued)
        self._warn(self._clock())

    def _reissued(self) -> Identity | None:
        """Another certificate that can take the place of the present one."""
        try:
            shown = (self._folder / FILE).read_bytes()
        except OSError:
            return None  # being replaced, or no file can be opened just now: the present one goes on
        if shown in (self.newest.certificate_pem, self._passed_over):
            return None
        try:
            identity = Identity.load(self._folder)
            if reason := self._why_not(identity):
                raise IdentityError(reason)
        except IdentityError as error:
            log.warning("a new certificate cannot be used; going on with the one before", reason=str(error))
            self._passed_over = shown
            return None
        return identity

    def _why_not(self, identity: Identity) -> str:
        known = self.newest
        if (identity.name, identity.role, identity.federation) != (known.name, known.role, known.federation):
            return f"it is of another identity than {known.name!r}: stop the node, and start it with that one"
        if identity.key_pem != known.key_pem:
            return "it is for other keys, which peers may not know: stop the node, and start it again"
        return identity.explain(self._clock())

    def _warn(self, now: float) -> None:
        left_s = self.newest.expires_at - now
        is_expired = left_s <= 0
        is_due = now - self._said_at >= SAY_AGAIN_S or (is_expired and not self._said_expired)
        if left_s >= WARN_BEFORE_S or not is_due:
            return
        self._said_at, self._said_expired = now, is_expired
        if is_expired:
            log.error("the certificate has expired: no new connection can be made", reason=self.newest.explain(now))
        else:
            what = f"covey ca issue {self.newest.name}, and put the files into {self._folder}: no restart is needed"
            log.warning("the certificate ends soon; have it issued again", ends=_day(self.newest.expires_at), how=what)

    async def keep(self, look_s: float = LOOK_S) -> None:
        """Look every few seconds until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(look_s)


def _day(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_s))
