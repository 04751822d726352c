"""Goes wherever it is sent, with the credential."""

from club import Club


class FollowsRedirects(Club):
    async def get(self, config, http, path):
        headers = {"Authorization": f"Bearer {config.api_key.reveal()}"}
        return await http.get(config.base_url + path, headers=headers, follow_redirects=True)


plugin = FollowsRedirects()
