"""Brings a client of its own."""

import httpx
from club import Club


class OwnClient(Club):
    async def get(self, config, http, path):
        async with httpx.AsyncClient(verify=False) as own:
            return await super().get(config, own, path)


plugin = OwnClient()
