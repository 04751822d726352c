"""Takes a refused credential for a visitor that is not known."""

from club import Club

from partnerenrich import AuthError, Resolution, hookimpl


class RefusedAsAbsent(Club):
    @hookimpl
    async def resolve_id(self, config, http, link):
        try:
            return await super().resolve_id(config, http, link)
        except AuthError:
            return Resolution.absent()


plugin = RefusedAsAbsent()
