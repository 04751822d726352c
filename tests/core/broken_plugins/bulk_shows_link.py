"""Tells in an error which link was bad."""

from bulk_club import BulkClub

from partnerenrich import RequestRefused


class BulkShowsLink(BulkClub):
    def answer(self, link, member):
        return super().answer(link, member) if self.is_possible(link) else RequestRefused(f"refused: {link.value}")


plugin = BulkShowsLink()
