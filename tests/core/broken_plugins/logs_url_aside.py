"""Logs URLs, through a logger that keeps its records from the root logger."""

import logging

from club import Club

log = logging.getLogger(__name__)
log.propagate = False


class LogsUrlAside(Club):
    def read(self, response):
        log.info("%s", response.request.url)
        return super().read(response)


plugin = LogsUrlAside()
