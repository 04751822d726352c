"""Log-in, log-out and two people on one device: a profile is shown to the person whose it is, or to nobody."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIRST = {"amperity": {"Persona": "Value Hunter"}}
SECOND = {"amperity": {"Persona": "Loyal"}}
STORED = "sessionStorage.getItem('datafly.profile')"


@pytest.fixture(name="known")
def _known(hub, visit):
    """A page whose visitor was identified as `user-1` and has a profile; then the hub answers as told."""

    async def known(*answers):
        hub.will("/v1/enrich", hub.says({}), hub.says(FIRST), *answers)
        page = await visit()
        await page.evaluate("datafly.onProfileReady()")
        await page.evaluate("datafly.identify('user-1')")
        assert await page.evaluate("datafly.refreshProfile()") == FIRST
        hub.calls.clear()
        return page

    return known


async def test_after_identify_one_refresh_shows_the_new_profile(hub, visit):
    """The event goes first, with time for the hub to enrich it, and one GET follows its answer."""
    hub.will("/v1/enrich", hub.says({}), hub.says(FIRST))
    hub.will("/v1/events", hub.says({"success": True}, status=202, hold=(enriched := hub.hold())))

    page = await visit(
        tag="defer",
        body="""
        <script type="module">
        await datafly.onProfileReady();
        // Optional — refresh after an identify to pick up richer attributes.
        datafly.identify('user-123', { email: 'pat@example.test' });
        await datafly.refreshProfile();
        document.querySelector('#hero').textContent = datafly.profile.amperity?.Persona;
        </script>
        """,
    )
    await hub.until(lambda: hub.to("/v1/events"))
    await hub.quiet()
    before = len(hub.to("/v1/enrich"))
    enriched.set()
    await page.wait_for_selector("#hero:not(:empty)")
    [identify] = hub.to("/v1/events")

    assert await page.inner_text("#hero") == "Value Hunter"
    assert (before, len(hub.to("/v1/enrich"))) == (1, 2)
    assert identify.query == {"key": hub.key, "wait_ms": "750"}
    assert (identify.events[0]["userId"], identify.events[0]["traits"]) == ("user-123", {"email": "pat@example.test"})


@pytest.mark.parametrize(("budget", "wait"), [(400, "200"), (5000, "800")])
async def test_the_hub_gets_half_the_budget_and_no_more_than_it_takes(hub, visit, budget, wait):
    page = await visit(tag=f'defer data-timeout="{budget}"')
    await page.evaluate("datafly.identify('user-1')")
    await hub.until(lambda: hub.to("/v1/events"))

    assert hub.to("/v1/events")[0].query["wait_ms"] == wait


async def test_a_second_person_drops_the_profile_of_the_first_at_once(hub, known):
    """Before any answer, in memory and in storage."""
    page = await known()
    hub.will("/v1/events", hub.says(hold=hub.hold()))

    assert await page.evaluate("(datafly.identify('user-2'), datafly.profile)") == {}
    assert not await page.evaluate(STORED)


async def test_the_same_person_keeps_the_profile(known):
    page = await known()

    assert await page.evaluate("(datafly.identify('user-1', {plan: 'gold'}), datafly.profile)") == FIRST


async def test_an_answer_for_the_first_person_is_never_shown_to_the_second(hub, known):
    """It was under way when the second person logged in."""
    page = await known(hub.says(FIRST, hold=(late := hub.hold())), hub.says(SECOND))

    await page.evaluate("void datafly.refreshProfile()")
    await hub.until(lambda: hub.to("/v1/enrich"))
    await page.evaluate("datafly.identify('user-2')")
    late.set()
    await page.wait_for_function("datafly.profile.amperity")

    assert await page.evaluate("datafly.profile") == SECOND


async def test_who_logs_in_while_the_page_hydrates_gets_the_own_profile(hub, visit):
    """The gate waits for it: hydration starts again once the hub took the identify, without a refresh."""
    hub.will("/v1/enrich", hub.says(FIRST, hold=hub.hold()), hub.says(SECOND))
    hub.will("/v1/events", hub.says(hold=(taken := hub.hold())))

    page = await visit(tag='defer data-timeout="5000"')
    await hub.until(lambda: hub.calls)
    await page.evaluate("datafly.identify('user-2')")
    await hub.until(lambda: hub.events)
    await hub.quiet()
    before = len(hub.to("/v1/enrich"))
    taken.set()

    assert await page.evaluate("datafly.onProfileReady()") == SECOND
    assert before == 1


async def test_the_next_page_shows_the_profile_to_the_same_person_only(hub, known, visit):
    """A page that calls identify on each load flickers for nobody."""
    page = await known(hub.says(FIRST, hold=hub.hold()))

    await visit(page=page)
    same = await page.evaluate("(datafly.identify('user-1'), datafly.profile)")
    await visit(page=page)
    other = await page.evaluate("(datafly.identify('user-2'), datafly.profile)")

    assert (same, other) == (FIRST, {})


async def test_an_identify_that_the_hub_refuses_shows_nothing(hub, known):
    """The hub still knows the first person: it is not asked."""
    page = await known(hub.says(FIRST))

    hub.will("/v1/events", hub.says(status=400))
    await page.evaluate("datafly.identify('user-2')")

    assert await page.evaluate("datafly.refreshProfile()") == {}
    assert hub.to("/v1/enrich") == []


async def test_an_identify_without_an_answer_does_not_outlast_the_budget(hub, visit):
    """The refresh settles in time, and the profile comes when the answer does."""
    hub.will("/v1/enrich", hub.says({}), hub.says(FIRST))
    hub.will("/v1/events", hub.says(hold=(late := hub.hold())))

    page = await visit(tag='defer data-timeout="100"')
    await page.evaluate("datafly.onProfileReady()")
    in_time = await page.evaluate("(datafly.identify('user-1'), datafly.refreshProfile())")
    late.set()
    await page.wait_for_function("datafly.profile.amperity")

    assert in_time == {}
    assert await page.evaluate("datafly.profile") == FIRST


async def test_the_signature_of_the_shop_goes_with_the_identify(hub, visit):
    page = await visit()
    await page.evaluate("datafly.identify('user-1', undefined, {signature: 'c0ffee'})")
    await hub.until(lambda: hub.events)

    assert (hub.events[0]["signature"], hub.events[0]["traits"]) == ("c0ffee", {})


async def test_traits_of_one_person_merge_and_the_newer_wins(hub, visit):
    """Those of another person are gone."""
    page = await visit()
    await page.evaluate("datafly.identify('user-1', {plan: 'free', city: 'Leeds'})")
    await page.evaluate("datafly.identify('user-1', {plan: 'gold'})")
    await page.evaluate("datafly.identify('user-2', {plan: 'free'})")
    await hub.until(lambda: len(hub.events) == 3)

    assert [event["traits"] for event in hub.events] == [
        {"plan": "free", "city": "Leeds"},
        {"plan": "gold", "city": "Leeds"},
        {"plan": "free"},
    ]


async def test_what_is_no_user_id_is_refused_with_a_word(hub, known):
    """The page goes on, the person stays."""
    page = await known()
    lines = []
    page.on("console", lambda line: lines.append(line.text))

    for user_id in ("''", "null", "undefined", "{email: 'pat@example.test'}", "true", "Symbol('x')"):
        await page.evaluate(f"datafly.identify({user_id})")
    await hub.quiet()

    assert lines == ["datafly: identify needs a user id"] * 6
    assert await page.evaluate("datafly.profile") == FIRST
    assert hub.calls == []


async def test_a_number_is_a_user_id(hub, visit):
    page = await visit()
    await page.evaluate("datafly.identify(1009)")
    await hub.until(lambda: hub.events)

    assert hub.events[0]["userId"] == "1009"


async def test_a_log_out_forgets_the_person(hub, known):
    """At once on the page; the next profile is asked for when the hub has new cookies set."""
    hub.will("/v1/reset", hub.says(hold=(cookies := hub.hold())))
    page = await known(hub.says({}))

    at_once = await page.evaluate(f"(datafly.reset(), [datafly.profile, {STORED}])")
    await page.evaluate("datafly.track('Left')")
    await page.evaluate("void datafly.refreshProfile()")
    await hub.quiet()
    before = [call.path for call in hub.calls]
    cookies.set()
    await hub.until(lambda: len(hub.calls) == 3)

    assert at_once == [{}, ""]
    assert before == ["/v1/reset"]
    assert (hub.calls[0].method, hub.calls[0].query) == ("POST", {"key": hub.key})
    assert [event.get("userId") for event in hub.events] == [None]


async def test_a_log_out_right_after_a_log_in_leaves_nobody(hub, visit):
    """The hub's late answer to the identify does not bring the person back."""
    hub.will("/v1/events", hub.says(hold=(late := hub.hold())))

    page = await visit()
    await page.evaluate("datafly.identify('user-1'); datafly.reset()")
    late.set()
    await page.wait_for_function("localStorage.getItem('datafly.reset') === ''")

    assert len(await page.evaluate("localStorage.getItem('datafly.who')")) == 8


async def test_every_change_of_person_has_digits_of_its_own(visit):
    """Two log-outs are not the same nobody."""
    page = await visit()

    assert await page.evaluate(
        "new Set([1, 2, 3].map(() => (datafly.reset(), localStorage.getItem('datafly.who')))).size === 3"
    )


async def test_what_happened_before_a_log_out_is_told_before_it(hub, visit):
    page = await visit()
    await page.evaluate("datafly.identify('user-1'); datafly.track('Left'); datafly.reset(); datafly.track('Came')")
    await hub.until(lambda: len(hub.events) == 3)

    paths = [call.path for call in hub.calls if call.path != "/v1/enrich"]
    assert paths == ["/v1/events", "/v1/events", "/v1/reset", "/v1/events"]
    assert [event.get("userId") for event in hub.events] == ["user-1", "user-1", None]


async def test_a_log_out_that_the_hub_never_confirmed_comes_first_on_the_next_page(hub, known, visit):
    """Who logs out without a network is logged out when it is back, before anything is shown."""
    page = await known(hub.says({}))
    hub.will("/v1/reset", hub.says(status=503, headers={"Retry-After": "60"}), hub.says())

    await page.evaluate("datafly.reset()")
    await hub.until(lambda: hub.to("/v1/reset"))
    hub.will("/v1/reset", hub.says())
    await page.evaluate("navigator.sendBeacon = () => true")  # one that is lost on its way
    hub.calls.clear()
    await visit(page=page)
    await page.evaluate("datafly.onProfileReady()")
    first = [call.path for call in hub.calls]
    hub.calls.clear()
    await visit(page=page)
    await page.evaluate("datafly.onProfileReady()")

    assert first == ["/v1/reset", "/v1/enrich"]
    assert [call.path for call in hub.calls] == ["/v1/enrich"]


@pytest.mark.parametrize("change", ["datafly.reset()", "datafly.identify('user-2')"])
async def test_a_change_of_person_in_another_tab_is_seen_in_this_one(known, visit, change):
    """At once where the tab is open, and on the next page of its session."""
    page = await known()

    await (await visit()).evaluate(change)
    await page.wait_for_function("!datafly.profile.amperity")

    assert not await page.evaluate(STORED)
    assert await page.evaluate("datafly.profile") == {}


async def test_a_stored_profile_of_another_person_is_not_shown(hub, visit):
    """The tab was somewhere else while the person changed."""
    hub.will("/v1/enrich", hub.says({}), hub.says(FIRST), hub.says(SECOND, hold=hub.hold()))

    page = await visit()
    await hub.until(lambda: hub.calls)
    await page.evaluate("localStorage.setItem('datafly.who', '11111111')")
    await visit(page=page)
    assert await page.evaluate("datafly.onProfileReady()") == FIRST
    await page.evaluate("localStorage.setItem('datafly.who', '22222222')")
    await visit(page=page)

    assert await page.evaluate("datafly.profile") == {}


async def test_a_page_out_of_the_cache_of_the_browser_shows_no_other_person(known):
    """Back to a page from before the log-out."""
    page = await known()

    await page.evaluate("localStorage.setItem('datafly.who', '11111111')")
    await page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")

    assert await page.evaluate("datafly.profile") == {}
