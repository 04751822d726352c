"""Writes into the log who left."""

import logging

from leavers import Leavers


class NamesALeaver(Leavers):
    def left(self, link):
        logging.getLogger(__name__).info("%s has left", link.value)
        return super().left(link)


plugin = NamesALeaver()
