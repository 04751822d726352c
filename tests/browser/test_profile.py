"""The profile of a page: there at once or within the budget, the newest answer wins, and nothing breaks it."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

HUNTER = {"amperity": {"Persona": "Value Hunter"}}
LOYAL = {"amperity": {"Persona": "Loyal"}}
GATE = """
<script type="module">
await datafly.onProfileReady();
const persona = datafly.profile.amperity?.Persona;
if (persona === 'Value Hunter') {
  document.querySelector('#hero').dataset.variant = 'promo';
}
document.body.dataset.done = 'yes';
</script>
"""
OPENED = "datafly.onProfileReady().then(() => { window.opened = true })"


@pytest.mark.parametrize(
    ("answer", "variant"),
    [
        ({"body": HUNTER}, "promo"),
        ({"body": {}}, None),
        ({"status": 429, "headers": {"Retry-After": "30"}}, None),
        ({"status": 500, "body": "oops"}, None),
    ],
    ids=["promo", "no cookie", "limited", "broken"],
)
async def test_the_gate_of_a_page_opens_whatever_the_hub_says(hub, visit, answer, variant):
    """A page renders once it knows the profile, or that there is none."""
    hub.will("/v1/enrich", hub.says(**answer))

    page = await visit(GATE)
    await page.wait_for_selector("body[data-done]", state="attached")

    assert await page.get_attribute("#hero", "data-variant") == variant
    assert len(hub.to("/v1/enrich")) == 1


async def test_hydration_is_one_simple_request_with_the_cookie(hub, visit):
    """No preflight, no header of ours, and the visitor is known by a cookie that script cannot read."""
    page = await visit()
    await hub.until(lambda: hub.calls)
    await visit(page=page)
    await hub.until(lambda: len(hub.calls) == 2)

    assert {(call.method, call.path, *call.query.items()) for call in hub.calls} == {
        ("GET", "/v1/enrich", ("key", hub.key))
    }
    assert [call.headers.get("cookie", "")[:7] for call in hub.calls] == ["", "_dfdid="]
    assert await page.evaluate("document.cookie") == ""


async def test_the_profile_is_an_object_before_any_answer(hub, visit):
    """`datafly.profile.amperity?.Persona` never throws."""
    hub.will("/v1/enrich", hub.says(hold=hub.hold()))

    page = await visit("<script type=module>window.early = [datafly.profile, datafly === _df]</script>")

    assert await page.evaluate("early") == [{}, True]


@pytest.mark.parametrize(("tag", "budget"), [("300", 300), ("soon", 1500)])
async def test_a_hanging_hub_neither_blocks_the_page_nor_outlasts_the_budget(hub, visit, clock, tag, budget):
    """
    The page loads, and the gate opens after `data-timeout` milliseconds with what is known.

    A `data-timeout` that is none is as good as no `data-timeout`.
    """
    hub.will("/v1/enrich", hub.says(hold=hub.hold()))

    page = await visit(tag=f'defer data-timeout="{tag}"')
    await page.evaluate(f"void {OPENED}")
    await clock.run_for(budget - 1)
    early = await page.evaluate("window.opened")
    await clock.run_for(1)

    assert (early, await page.evaluate("window.opened")) == (None, True)
    assert await page.evaluate("datafly.profile") == {}


async def test_an_answer_after_the_budget_is_not_lost(hub, visit):
    """It is the profile from then on, for the next look and the next page."""
    hub.will("/v1/enrich", hub.says(HUNTER, hold=(late := hub.hold())))

    page = await visit(tag='defer data-timeout="50"')
    at_the_gate = await page.evaluate("datafly.onProfileReady()")
    late.set()
    await page.wait_for_function("datafly.profile.amperity")

    assert at_the_gate == {}
    assert await page.evaluate("datafly.profile") == HUNTER


async def test_a_callback_gets_the_profile_too(hub, visit):
    hub.will("/v1/enrich", hub.says(HUNTER))

    page = await visit()

    assert await page.evaluate("new Promise((done) => { datafly.onProfileReady(done) })") == HUNTER


async def test_a_refresh_replaces_the_profile(hub, visit):
    hub.will("/v1/enrich", hub.says(HUNTER), hub.says(LOYAL), hub.says({}))

    page = await visit()
    profiles = [
        await page.evaluate(script)
        for script in ("datafly.onProfileReady()", "datafly.refreshProfile()", "datafly.refreshProfile()")
    ]

    assert profiles == [HUNTER, LOYAL, {}]


async def test_an_older_answer_never_overwrites_a_newer_one(hub, visit):
    """A refresh supersedes hydration in flight; those who wait for hydration get the newer answer."""
    hub.will("/v1/enrich", hub.says(HUNTER, hold=(older := hub.hold())), hub.says(LOYAL))

    page = await visit()
    await hub.until(lambda: hub.calls)
    refreshed = await page.evaluate("Promise.all([datafly.onProfileReady(), datafly.refreshProfile()])")
    older.set()
    await hub.quiet()

    assert refreshed == [LOYAL, LOYAL]
    assert await page.evaluate("datafly.profile") == LOYAL


async def test_refreshes_of_one_moment_are_one_request(hub, visit):
    hub.will("/v1/enrich", hub.says({}), hub.says(LOYAL))

    page = await visit()
    await page.evaluate("datafly.onProfileReady()")
    refreshed = await page.evaluate("Promise.all([datafly.refreshProfile(), datafly.refreshProfile()])")

    assert refreshed == [LOYAL, LOYAL]
    assert len(hub.to("/v1/enrich")) == 2


async def test_what_is_no_profile_leaves_the_last_one(hub, visit, expected_errors):
    """A server error, half a document or an answer for another origin: the page keeps what it knows."""
    expected_errors.append("Access to fetch")
    elsewhere = {"Access-Control-Allow-Origin": "https://other.example.test"}
    texts = ['{"amperity": ', "<html>", "", "null", '["amperity"]', '"amperity"']
    failures = [
        hub.says(LOYAL, status=500),
        hub.says({"error": "unknown"}, status=404),
        hub.says(LOYAL, headers=elsewhere),
        *map(hub.says, texts),
    ]
    hub.will("/v1/enrich", hub.says(HUNTER), *failures, hub.says(LOYAL))

    page = await visit()
    await page.evaluate("datafly.onProfileReady()")
    profiles = [await page.evaluate("datafly.refreshProfile()") for _ in failures]

    assert profiles == [HUNTER] * len(failures)
    assert await page.evaluate("datafly.refreshProfile()") == LOYAL


async def test_a_rate_limit_is_respected(hub, visit, clock):
    """Before `Retry-After` is over no request is made, and the page goes on with what it knows."""
    limited = hub.says(status=429, headers={"Retry-After": "2"})
    hub.will("/v1/enrich", hub.says(HUNTER), limited, hub.says(LOYAL))

    page = await visit()
    await page.evaluate("datafly.onProfileReady()")
    during = [await page.evaluate("datafly.refreshProfile()") for _ in range(3)]
    requests = len(hub.to("/v1/enrich"))
    await clock.run_for(2000)
    after = await page.evaluate("datafly.refreshProfile()")

    assert (during, requests) == ([HUNTER] * 3, 2)
    assert after == LOYAL


async def test_a_rate_limit_without_a_time_is_respected_too(hub, visit):
    hub.will("/v1/enrich", hub.says(status=429))

    page = await visit()
    await page.evaluate("datafly.onProfileReady()")

    assert await page.evaluate("datafly.refreshProfile()") == {}
    assert len(hub.to("/v1/enrich")) == 1


async def test_within_a_session_the_last_profile_is_shown_at_once_and_revalidated(hub, visit):
    """The gate of the second page opens before the hub has answered."""
    revalidation = hub.says(LOYAL, hold=(second := hub.hold()))
    hub.will("/v1/enrich", hub.says(HUNTER), revalidation)

    page = await visit()
    await page.evaluate("datafly.onProfileReady()")
    await visit(page=page, tag='defer data-timeout="60000"')
    async with asyncio.timeout(5):
        at_once = await page.evaluate("datafly.onProfileReady()")
    second.set()
    await page.wait_for_function("datafly.profile.amperity.Persona === 'Loyal'")

    assert at_once == HUNTER
    assert len(hub.to("/v1/enrich")) == 2


async def test_a_new_session_knows_nothing(hub, visit):
    """Another tab asks the hub first."""
    hub.will("/v1/enrich", hub.says(HUNTER), hub.says(LOYAL, hold=hub.hold()))

    await (await visit()).evaluate("datafly.onProfileReady()")

    assert await (await visit()).evaluate("datafly.profile") == {}


async def test_storage_holds_the_attributes_and_nothing_else_of_a_person(hub, visit):
    """Beside them: digits that say whether the profile is still the same person's."""
    hub.will("/v1/enrich", hub.says(HUNTER))

    page = await visit()
    await page.evaluate("datafly.identify('user-123', {email: 'pat@example.test', phone: '+442071838750'})")
    await page.evaluate("datafly.track('Order', {email: 'pat@example.test', value: 42})")
    await page.evaluate("datafly.refreshProfile()")
    session, local = await page.evaluate("[{...sessionStorage}, {...localStorage}]")
    digits, brace, attributes = session.pop("datafly.profile").partition("{")

    assert f"{brace}{attributes}" == '{"amperity": {"Persona": "Value Hunter"}}'
    assert (session, local) == ({}, {"datafly.who": digits})
    assert digits.replace("-", "").isdigit()


async def test_damaged_storage_is_no_profile(hub, visit):
    hub.will("/v1/enrich", hub.says(LOYAL))
    page = await visit()
    profiles = []

    for text in ("", "{", '{"amperity"', "null"):
        await page.evaluate("(text) => sessionStorage.setItem('datafly.profile', text)", text)
        await visit(page=page)
        profiles.append(await page.evaluate("datafly.onProfileReady()"))

    assert profiles == [LOYAL] * 4


async def test_a_page_without_storage_works_all_the_same(hub, visit, context):
    """Some browsers let no script store anything."""
    await context.add_init_script(
        "for (const area of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, area, {get() { throw new DOMException('denied') }})"
    )
    hub.will("/v1/enrich", hub.says(HUNTER), hub.says(LOYAL))

    page = await visit("<script type=module>datafly.identify('user-1')</script>")
    await page.evaluate("datafly.onProfileReady()")
    await page.evaluate("datafly.track('Order')")
    await hub.until(lambda: len(hub.events) == 2)

    assert await page.evaluate("datafly.refreshProfile()") == LOYAL
    assert [event["userId"] for event in hub.events] == ["user-1", "user-1"]
