"""Takes its key as plain text."""

import attrs
from club import Club


class Key(str):
    __slots__ = ()

    def reveal(self):
        return self


@attrs.frozen(kw_only=True)
class PlainConfig:
    base_url: str
    api_key: str = attrs.field(converter=Key)


class PlainCredential(Club):
    config = PlainConfig


plugin = PlainCredential()
