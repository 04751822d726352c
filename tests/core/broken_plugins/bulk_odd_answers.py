"""Answers with ids instead of resolutions."""

from bulk_club import BulkClub


class BulkOddAnswers(BulkClub):
    def answer(self, link, member):
        return member


plugin = BulkOddAnswers()
