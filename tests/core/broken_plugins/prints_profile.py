"""Prints what it found."""

from club import Club

from partnerenrich import hookimpl


class PrintsProfile(Club):
    @hookimpl
    async def fetch_attributes(self, config, http, partner_id):
        profile = await super().fetch_attributes(config, http, partner_id)
        print(profile)
        return profile


plugin = PrintsProfile()
