"""Hands the profile over as it came: as text."""

from club import Club

from partnerenrich import hookimpl


class TextAttributes(Club):
    @hookimpl
    async def fetch_attributes(self, config, http, partner_id):
        await super().fetch_attributes(config, http, partner_id)
        return '{"Tier": "Gold for life"}'


plugin = TextAttributes()
