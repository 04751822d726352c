"""No secret, no identifier, no cookie and no attribute beyond the allowlist in an answer, a log line or a number."""

import json

from partnerenrich import Resolution, Unavailable

EMAIL, PHONE, USER = "canary-email@example.test", "+447700900123", "canary-user"
ATTRIBUTE, SHOWN = "canary-attribute", "shown-attribute"
PARTNER_ID = "canary-partner-id"
SECRETS = ("ingest-secret-canary-0123456789", "credential-canary-0123456789", "identity-secret-canary-0123456789")
QUERY, BODY = "canary-query", "canary-body"


async def test_nothing_leaks(browser, toy, hub, log_lines):
    person = {"userId": USER, "traits": {"email": EMAIL, "phone": PHONE, "note": BODY}, "type": "identify"}
    toy.answers[EMAIL] = Resolution(PARTNER_ID, attributes={"Persona": SHOWN, "Hidden": ATTRIBUTE})
    toy.answers["personalize"] = {"Banner": SHOWN, "Hidden": ATTRIBUTE}
    said = [
        await browser.call("POST", "/v1/events", body=person, wait_ms=800, utm=QUERY),
        await browser.enrich(utm=QUERY),
        await browser.call("POST", "/v1/personalize", body={"provider": "toy", "context": {"x": BODY}}),
        await browser.call("POST", "/v1/batch", body={"batch": [person, BODY, {"type": BODY}]}),
        await browser.call("POST", "/v1/events", body=json.dumps(person)[:-1]),
        await browser.call("POST", "/v1/events", body=person, wait_ms=QUERY),
        await browser.enrich(provider=QUERY),
        await browser.enrich(key=QUERY),
        await browser.call("POST", "/v1/personalize", body={"provider": QUERY, "context": {"x": BODY}}),
        await browser.call("GET", f"/{QUERY}"),
        await browser.call("GET", "/v1/enrich", headers={"origin": f"https://{QUERY}.example"}),
        await hub.signed("/v1/events", json.dumps(person).encode()),
        await hub.signed("/v1/events", json.dumps(person).encode(), secret="wrong-" + BODY),
    ]
    toy.answers["personalize"] = Unavailable(BODY)
    said.append(await browser.call("POST", "/v1/personalize", body={"provider": "toy", "context": {"y": BODY}}))
    said += [await browser.enrich() for _ in range(11)]
    said.append(await browser.call("POST", "/v1/reset", body=""))
    said += [await hub.client.get(f"{hub.url}{path}") for path in ("/metrics", "/readyz", "/openapi.json")]

    told = [answer.text + repr([item for item in answer.headers.items() if item[0] != "set-cookie"]) for answer in said]
    cookies = {value for answer in said for value in answer.headers.get("set-cookie", "").split("; ")[0].split("=")[1:]}
    hidden = {EMAIL, PHONE, USER, ATTRIBUTE, PARTNER_ID, QUERY, BODY, *SECRETS, *cookies}
    leaks = {word for word in hidden for text in (*told, *log_lines) if word in text}

    assert any(SHOWN in text for text in told)
    assert len(log_lines) > 10
    assert leaks == set()
    assert "127.0.0.1" not in "".join(log_lines)
    assert SHOWN not in "".join(log_lines) + told[-3]
