"""How long the operator lets one job take."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

from covey.errors import PolicyError


@contextlib.asynccontextmanager
async def allowed_time(seconds: float) -> AsyncIterator[None]:
    """Give up what is done inside after so many seconds; infinite: never.

    Raises:
        PolicyError: It took longer.
    """
    try:
        async with asyncio.timeout(seconds if math.isfinite(seconds) else None) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise PolicyError(
            f"it took longer than the {seconds:g} s that this node's operator allows ([limits] round_s in node.toml)"
        ) from None
