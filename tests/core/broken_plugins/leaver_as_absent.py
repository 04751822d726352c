"""Takes "does not want to be known" for "not known"."""

from leavers import Leavers

from partnerenrich import Resolution


class LeaverAsAbsent(Leavers):
    def left(self, _link):
        return Resolution.absent()


plugin = LeaverAsAbsent()
