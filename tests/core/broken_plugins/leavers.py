"""A club whose members may leave, and are not to be known any more. It keeps the contract."""

from __future__ import annotations

import attrs
from club import Club

from partnerenrich import Resolution, hookimpl

LEAVER = "leaver@example.test"


class Leavers(Club):
    @hookimpl
    async def resolve_id(self, config, http, link):
        return self.left(link) if link.value == LEAVER else await super().resolve_id(config, http, link)

    def left(self, _link):
        return Resolution.opted_out()

    @hookimpl
    def sandbox(self):
        sandbox = super().sandbox()
        return attrs.evolve(sandbox, sample={**sandbox.sample, "opted_out": [{"email": LEAVER}]})


plugin = Leavers()
