"""Implements an async hook with a plain function."""

from club import Club

from partnerenrich import Resolution, hookimpl


class SyncHook(Club):
    @hookimpl
    def resolve_id(self):
        return Resolution.absent()


plugin = SyncHook()
