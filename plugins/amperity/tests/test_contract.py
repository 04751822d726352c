"""The conformance suite, against the sandbox."""

from partnerenrich.testing import PluginContract


class TestAmperity(PluginContract):
    provider = "amperity"
