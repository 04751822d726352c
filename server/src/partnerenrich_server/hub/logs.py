"""
The log, one JSON object a line on stderr.

Never in it: a cookie, a query, a body, an address, a header but the request id, a traceback.
"""

from __future__ import annotations

import contextvars
import logging
from datetime import UTC, datetime
from typing import Final

from partnerenrich_server.failures import explained
from partnerenrich_server.hub.replies import encode

request_id: Final[contextvars.ContextVar[str | None]] = contextvars.ContextVar("request_id", default=None)
"""Of the request that is worked on."""

LEVELS: Final = ("debug", "info", "warning", "error")


class JsonFormatter(logging.Formatter):
    """Writes a record as JSON. Of an exception it tells the type and the place, for its text may hold values."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := request_id.get():
            fields["request_id"] = request
        fields |= getattr(record, "fields", {})
        if record.exc_info and isinstance(record.exc_info[1], Exception):
            fields["error"] = explained(record.exc_info[1]).message
        return encode(fields).decode()


def configure(level: str) -> None:
    """
    Send the log of this process to stderr.

    Args:
        level: One of `LEVELS`, for what is ours. Libraries are heard from WARNING on.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("partnerenrich", "partnerenrich_server"):
        logging.getLogger(name).setLevel(level.upper())
