"""Says that somebody left, and hands over the profile all the same."""

from leavers import Leavers

from partnerenrich import Resolution


class ProfileOfALeaver(Leavers):
    def left(self, _link):
        return Resolution(reason="opted_out", attributes={"Tier": "Gold for life"})


plugin = ProfileOfALeaver()
