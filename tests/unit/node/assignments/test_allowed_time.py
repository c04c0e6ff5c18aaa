"""How long the operator lets one job take."""

from __future__ import annotations

import asyncio
import math

import pytest

from covey.errors import PolicyError
from covey.node.assignments.allowed_time import allowed_time


async def test_what_takes_longer_is_given_up_with_the_key_to_change():
    with pytest.raises(PolicyError, match=r"0.01 s.*\[limits\] round_s"):
        async with allowed_time(0.01):
            await asyncio.Event().wait()


async def test_a_timeout_of_the_work_itself_is_its_own():
    with pytest.raises(TimeoutError):
        async with allowed_time(60):
            raise TimeoutError


async def test_without_a_limit_nothing_is_given_up():
    async with allowed_time(math.inf):
        await asyncio.sleep(0)
