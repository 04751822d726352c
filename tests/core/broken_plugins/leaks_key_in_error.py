"""Tells which key was refused."""

from club import Club

from partnerenrich import AuthError


class LeaksKeyInError(Club):
    async def get(self, config, http, path):
        response = await super().get(config, http, path)
        if response.status_code == 401:
            raise AuthError(f"the club refuses {config.api_key.reveal()}")
        return response


plugin = LeaksKeyInError()
