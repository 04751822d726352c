"""Makes a request for each link."""

from bulk_club import BulkClub


class BulkOneByOne(BulkClub):
    async def members(self, config, http, mails):
        found = {}
        for mail in mails:
            found |= await super().members(config, http, [mail])
        return found


plugin = BulkOneByOne()
