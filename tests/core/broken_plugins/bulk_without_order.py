"""Answers in the order in which the partner answers."""

from bulk_club import BulkClub

from partnerenrich import hookimpl


class BulkWithoutOrder(BulkClub):
    @hookimpl
    async def resolve_ids(self, config, http, links):
        answers = await super().resolve_ids(config, http, links)
        return sorted(answers, key=lambda answer: answer.partner_id or "")


plugin = BulkWithoutOrder()
