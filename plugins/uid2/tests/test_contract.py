"""Both partners keep to the contract, in every way that they can be set up."""

from __future__ import annotations

from typing import ClassVar

from partnerenrich import LinkingKey
from partnerenrich.testing import PluginContract


class TestUID2(PluginContract):
    provider = "uid2"


class TestEUID(PluginContract):
    provider = "euid"


class TestText(PluginContract):
    """Bodies in base64, identifiers as they are: the operator normalises, and says what is invalid."""

    provider = "uid2"
    settings: ClassVar = {"body": "base64"}
    linking_keys = (LinkingKey("email", "email"), LinkingKey("phone", "phone"))


class TestLegacy(PluginContract):
    """The protocol of before."""

    provider = "euid"
    settings: ClassVar = {"protocol": "v2"}
