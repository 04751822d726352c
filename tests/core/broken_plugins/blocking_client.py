"""Blocks the event loop, without any deadline, with a client of its own."""

import httpx
from club import Club

from partnerenrich import hookimpl


class BlockingClient(Club):
    @hookimpl
    async def check(self, config):
        headers = {"Authorization": f"Bearer {config.api_key.reveal()}"}
        with httpx.Client(headers=headers, timeout=None) as own:
            self.read(own.get(f"{config.base_url}/status")).json()["open"]  # noqa: ASYNC212 - on purpose


plugin = BlockingClient()
