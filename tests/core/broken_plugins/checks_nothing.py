"""Says that all is well without asking."""

from club import Club

from partnerenrich import hookimpl


class ChecksNothing(Club):
    @hookimpl
    async def check(self):
        return None


plugin = ChecksNothing()
