"""Puts a value into the profile that JSON does not have."""

from datetime import UTC, datetime

from club import Club

from partnerenrich import hookimpl


class OddAttributes(Club):
    @hookimpl
    async def fetch_attributes(self, config, http, partner_id):
        profile = await super().fetch_attributes(config, http, partner_id)
        return {**profile, "JoinedAt": datetime(2020, 2, 29, tzinfo=UTC)}


plugin = OddAttributes()
