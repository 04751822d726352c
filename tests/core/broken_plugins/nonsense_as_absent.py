"""Takes an answer that it cannot read for a visitor that is not known."""

from club import Club

from partnerenrich import Resolution, hookimpl
from partnerenrich.http import raise_for_status


class NonsenseAsAbsent(Club):
    @hookimpl
    async def resolve_id(self, config, http, link):
        response = await self.get(config, http, f"/members?mail={link.value}")
        if response.status_code == 404:
            return Resolution.absent()
        raise_for_status(response)
        try:
            return Resolution(response.json()["id"])
        except (ValueError, TypeError):
            return Resolution.absent()


plugin = NonsenseAsAbsent()
