"""Answers only for those whom the partner knows."""

from bulk_club import BulkClub

from partnerenrich import hookimpl


class BulkLeavesOutUnknown(BulkClub):
    @hookimpl
    async def resolve_ids(self, config, http, links):
        return [answer for answer in await super().resolve_ids(config, http, links) if answer.partner_id]


plugin = BulkLeavesOutUnknown()
