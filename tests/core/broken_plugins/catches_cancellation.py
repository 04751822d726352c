"""Takes a cancellation for a slow partner, and a slow partner for an answer."""

import asyncio

import httpx
from club import Club

from partnerenrich import Resolution, hookimpl


class CatchesCancellation(Club):
    @hookimpl
    async def resolve_id(self, config, http, link):
        try:
            return await super().resolve_id(config, http, link)
        except (asyncio.CancelledError, httpx.TimeoutException):
            return Resolution.absent()


plugin = CatchesCancellation()
