"""A sandbox whose key could stand in any text by chance."""

from club import Club, new_sandbox

from partnerenrich import hookimpl


class ShortCanaries(Club):
    @hookimpl
    def sandbox(self):
        return new_sandbox("key")


plugin = ShortCanaries()
