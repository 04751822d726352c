"""What all tests of the workspace share."""

from __future__ import annotations

from hypothesis import settings

# The speed of a busy machine is no property of the code.
settings.register_profile("unhurried", settings.default, deadline=None)
settings.load_profile("unhurried")
