"""Does not read when it may come back."""

from club import Club

from partnerenrich import RateLimited


class IgnoresRetryAfter(Club):
    def read(self, response):
        if response.status_code == 429:
            raise RateLimited
        return super().read(response)


plugin = IgnoresRetryAfter()
