"""Says that a call takes more links than the partner takes."""

from bulk_club import MOST, BulkClub

from partnerenrich import Limits


class BulkPromisesTooMuch(BulkClub):
    limits = Limits(bulk=MOST + 1)


plugin = BulkPromisesTooMuch()
