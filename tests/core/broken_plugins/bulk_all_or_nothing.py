"""Sends what cannot be an identifier, for which the partner refuses the whole call."""

from bulk_club import BulkClub


class BulkAllOrNothing(BulkClub):
    def is_possible(self, link):
        return True


plugin = BulkAllOrNothing()
