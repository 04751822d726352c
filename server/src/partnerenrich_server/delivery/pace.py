"""How long a worker waits between one call for a batch and the next."""

from __future__ import annotations

import random

import attrs


@attrs.frozen(kw_only=True)
class Pace:
    """
    Waits in seconds. Jitter only shortens them.

    Attributes:
        first_poll: From a partner's answer to the next question.
        poll_factor: How much longer each wait is, as long as there is no news.
        longest_poll: The longest of them.
        first_retry: From a failure to the next call; twice as long each time.
        longest_retry: The longest of them.
        refused: How long an integration is left alone whose credential is refused.
        sweep: From one look at what has collected to the next.
    """

    first_poll: float = 2.0
    poll_factor: float = 1.6
    longest_poll: float = 30.0
    first_retry: float = 5.0
    longest_retry: float = 300.0
    refused: float = 900.0
    sweep: float = 10.0

    def poll(self, number: int) -> float:
        """The wait after so many polls without news."""
        return _shortened(_grown(self.first_poll, self.poll_factor, number, self.longest_poll))

    def retry(self, number: int) -> float:
        """The wait after so many failures in a row, from 1."""
        return _shortened(_grown(self.first_retry, 2.0, number - 1, self.longest_retry))


def _grown(first: float, factor: float, times: int, longest: float) -> float:
    return min(first * factor ** min(times, 60), longest)


def _shortened(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.0)  # noqa: S311 - spreads load, hides nothing
