"""The conformance suite, over a socket."""

from partnerenrich.testing import PluginContract


class TestInfoSum(PluginContract):
    provider = "infosum"
