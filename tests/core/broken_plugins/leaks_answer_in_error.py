"""Quotes the partner's answer, which repeats the request."""

from club import Club

from partnerenrich import Unavailable


class LeaksAnswerInError(Club):
    def read(self, response):
        if response.status_code >= 500:
            raise Unavailable(f"the club answered {response.text}")
        return super().read(response)


plugin = LeaksAnswerInError()
