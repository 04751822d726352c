"""Has another id for a visitor than the single hook."""

from bulk_club import BulkClub

from partnerenrich import Resolution, hookimpl


class BulkDisagrees(BulkClub):
    @hookimpl
    async def resolve_id(self, config, http, link):
        (answer,) = await self.resolve_ids(config, http, [link])
        return Resolution(f"{answer.partner_id}-alone") if answer.partner_id else answer


plugin = BulkDisagrees()
