"""Implements a hook that does not exist."""

from club import Club

from partnerenrich import hookimpl


class MisspeltHook(Club):
    @hookimpl
    async def fetch_atributes(self):
        return {}


plugin = MisspeltHook()
