"""Lets the request go on when nobody waits for it any longer."""

import asyncio

from club import Club

from partnerenrich import hookimpl


class LeavesATask(Club):
    @hookimpl
    async def check(self, config, http):
        http.timeout = None
        await asyncio.shield(asyncio.ensure_future(super().check(config, http)))


plugin = LeavesATask()
