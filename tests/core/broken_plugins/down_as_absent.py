"""Takes a partner that is down for one that does not know the visitor."""

from club import Club

from partnerenrich import Resolution, Unavailable, hookimpl


class DownAsAbsent(Club):
    @hookimpl
    async def resolve_id(self, config, http, link):
        try:
            return await super().resolve_id(config, http, link)
        except Unavailable:
            return Resolution.absent()


plugin = DownAsAbsent()
