"""Waiting for what the sandbox does by itself."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Raises TimeoutError where it never comes."""
    async with asyncio.timeout(30):
        while not await is_so():
            await asyncio.sleep(0.1)
