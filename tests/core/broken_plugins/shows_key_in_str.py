"""Settings that print themselves in full."""

import attrs
from club import Club, Config


@attrs.frozen(kw_only=True, repr=False)
class TalkativeConfig(Config):
    def __repr__(self):
        return f"Config({self.base_url}, {self.api_key.reveal()})"


class ShowsKeyInStr(Club):
    config = TalkativeConfig


plugin = ShowsKeyInStr()
