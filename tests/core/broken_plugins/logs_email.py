"""Logs whom it looks up."""

import logging

from club import Club

from partnerenrich import hookimpl

log = logging.getLogger(__name__)


class LogsEmail(Club):
    @hookimpl
    async def resolve_id(self, config, http, link):
        log.debug("looking for %s", link.value)
        return await super().resolve_id(config, http, link)


plugin = LogsEmail()
