"""Values that never show."""

from __future__ import annotations

from typing import NoReturn

import attrs


@attrs.frozen(repr=False, str=False)
class Secret:
    """
    A credential. Its repr, str, JSON and pickle never show the value.

    Call `reveal` at the one place where the value goes on the wire.
    """

    _value: str

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")
