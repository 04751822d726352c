"""Takes "we do not know this visitor" for an error."""

from club import Club

from partnerenrich import Resolution, hookimpl
from partnerenrich.http import json_object


class AbsentAsError(Club):
    @hookimpl
    async def resolve_id(self, config, http, link):
        response = await self.get(config, http, f"/members?mail={link.value}")
        return Resolution(json_object(self.read(response))["id"])


plugin = AbsentAsError()
