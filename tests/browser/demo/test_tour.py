"""The shop of the demo before a real hub: what each visitor sees, and what nobody sees."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

GENERAL = "Made for weather"
PAT = {"club": {"Club": "Ramblers", "Persona": "Value Hunter", "Tier": 2}}
SAM = {"club": {"Club": "Ramblers", "Persona": "Loyal", "Tier": 2}}


async def test_a_stranger_sees_the_page_for_everybody(shop):
    await shop.open()
    await shop.page.wait_for_selector("#events li")

    assert (await shop.hero(), await shop.profile()) == (GENERAL, {})
    assert await shop.outcomes() == {"skipped": 1}


async def test_nothing_is_shown_before_the_profile_is_there_and_the_place_is_kept(shop):
    """The hero is as large as it will be; its words wait for `onProfileReady`."""
    answered = await shop.hold("/v1/enrich")
    await shop.page.goto(shop.url)
    answered.set()
    await shop.ready()
    place = await shop.page.evaluate("JSON.stringify(document.querySelector('#hero').getBoundingClientRect())")

    assert await shop.page.evaluate("atFirst") == ["waiting", "0", place]


async def test_the_hubs_cookies_are_kept_on_this_address(shop):
    """They stay `Secure`: the browser trusts the loopback address."""
    await shop.open()
    await shop.log_in("Pat")
    cookies = [cookie for cookie in await shop.page.context.cookies() if cookie["name"].startswith("_df")]

    assert [(each["secure"], each["httpOnly"], each["sameSite"]) for each in cookies] == [(True, True, "Lax")] * 2


async def test_a_log_in_turns_the_hero_without_a_reload(shop):
    await shop.open()
    await shop.page.evaluate("window.same = true")
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")

    assert await shop.profile() == PAT
    assert await shop.page.inner_text("#shelf-title") == "Picked for a Value Hunter"
    assert await shop.page.inner_text("#chips") == "Club Ramblers\nTier 2"
    assert await shop.page.evaluate("window.same")
    assert await shop.outcomes() == {"skipped": 1, "fresh": 1}


async def test_who_comes_back_sees_the_own_page_from_the_start(shop):
    """No general hero flashes up in between."""
    await shop.open()
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")
    await shop.open()
    await shop.page.wait_for_function("() => document.querySelectorAll('#events li').length === 4")

    assert set(await shop.page.evaluate("shown")) == {"For you: Value Hunter"}


async def test_two_people_on_one_device_never_share_attributes(shop):
    """From the moment of the second log-in nothing of the first person is shown, on the page or in storage."""
    await shop.open()
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")
    answered = await shop.hold("/v1/events")
    await shop.page.click("#account")
    await shop.page.click("#people button:has-text('Sam')")
    await shop.page.wait_for_selector("#hero[data-state=waiting]")
    await shop.page.evaluate("shown.length = 0")
    between = [await shop.profile(), await shop.stored()]
    answered.set()
    await shop.shows("For you: Loyal")

    assert between[0] == {}
    assert "Value Hunter" not in between[1]
    assert await shop.profile() == SAM
    assert "For you: Value Hunter" not in await shop.page.evaluate("shown")


async def test_each_picks_up_the_own_profile_when_they_take_turns(shop):
    own = {"Pat": "For you: Value Hunter", "Sam": "For you: Loyal", "Nobody": "Hello, Nobody"}
    await shop.open()
    for name in ("Pat", "Sam", "Pat", "Nobody", "Sam"):
        await shop.log_in(name)
        await shop.shows(own[name])

    assert await shop.outcomes() == {"skipped": 1, "fresh": 2, "hit": 2, "absent": 1}


async def test_a_partner_that_fails_takes_nothing_with_it(shop):
    """Who is new gets the general page, who is remembered the own one; the switch works both ways."""
    await shop.open()
    await shop.log_in("Pat")
    await shop.page.click("#partners label")
    await shop.page.wait_for_selector("#partners .down")
    await shop.log_in("Alex")
    await shop.shows("Hello, Alex")
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")
    await shop.page.click("#partners label")
    await shop.page.wait_for_selector("#partners li:not(.down)")
    await shop.log_in("Sam")
    await shop.shows("For you: Loyal")

    assert await shop.outcomes() == {"skipped": 1, "fresh": 2, "error": 1, "hit": 1}


async def test_a_log_out_leaves_nothing(shop):
    await shop.open()
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")
    before = {cookie["value"] for cookie in await shop.page.context.cookies() if cookie["name"].startswith("_df")}
    await shop.page.click("#account")
    await shop.page.click("#log-out")
    await shop.page.wait_for_selector("#account:text-is('Log in')")
    await shop.ready()
    await shop.page.wait_for_function("() => !localStorage['datafly.reset']")
    after = {cookie["value"] for cookie in await shop.page.context.cookies() if cookie["name"].startswith("_df")}

    assert (await shop.hero(), await shop.profile()) == (GENERAL, {})
    assert "Value Hunter" not in await shop.stored()
    assert len(before) == len(after) == 1
    assert before != after


async def test_a_claim_without_a_signature_shows_nothing(shop, visitor):
    """Also where the partner's answer is in memory. The event itself is enriched on the server."""
    await shop.open()
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")
    async with visitor() as liar:
        await liar.open()
        await liar.page.click("#forge")
        await liar.page.wait_for_function("() => document.querySelectorAll('#events li').length >= 4")
        await liar.ready()
        seen = (await liar.hero(), await liar.profile())

    assert seen == (GENERAL, {})
    assert (await shop.outcomes())["hit"] == 1


async def test_a_signature_counts_for_the_ids_that_it_signs_and_no_others(shop):
    await shop.open()
    pat = await shop.session(0)
    user_id, signature = pat["userId"], pat["signature"]
    expires, _, digest = signature.partition(".")
    await shop.identify("pat@example.test", user_id=user_id, signature=signature)
    await shop.page.wait_for_function("() => datafly.refreshProfile().then(({club}) => club)", polling=200)
    own = await shop.profile()

    assert pat["traits"] == {"email": "pat@example.test"}
    assert own == PAT
    for email, name, forged in (
        ("sam@example.test", user_id, signature),
        ("sam@example.test", "made-up", signature),
        ("sam@example.test", user_id, f"{int(expires) + 600}.{digest}"),
        ("sam@example.test", user_id, f"{expires}.{'0' * 64}"),
    ):
        await shop.page.evaluate("datafly.reset()")
        assert await shop.identify(email, user_id=name, signature=forged) == {}


async def test_who_withdraws_consent_is_shown_the_page_for_everybody(shop):
    await shop.open()
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")
    await shop.page.click(".consent")
    await shop.shows("Hello, Pat")
    without = await shop.profile()
    await shop.page.click(".consent")
    await shop.shows("For you: Value Hunter")

    assert without == {}
    assert (await shop.outcomes())["denied"] == 1


async def test_the_panel_tells_what_the_server_did(shop):
    await shop.open()
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")
    await shop.page.click(".add")
    await shop.page.wait_for_selector("#events li:has-text('Product Added')")
    numbers = [await shop.page.inner_text(f"#n-{name}") for name in ("events", "calls", "hits", "reads")]
    [newest, *_] = await shop.page.locator("#events li").all_inner_texts()

    assert numbers == ["3", "1", "1", "2"]
    assert "Rambling Club · hit · 4 attributes" in newest
    assert await shop.page.inner_text("#profile") == await shop.page.evaluate(
        "JSON.stringify(datafly.profile, null, 2)"
    )


async def test_the_tour_leads_from_step_to_step(shop):
    await shop.open()
    for button, line in (
        ("Log in as Pat", "For you: Value Hunter"),
        ("Hand the device to Alex", "For you: Gift Giver"),
        ("Pull Rambling Club’s plug, log in Kim", "Hello, Kim"),
        ("Now log in Pat again", "For you: Value Hunter"),
        ("Repair it, and claim to be Pat", GENERAL),
        ("Log out", GENERAL),
    ):
        await shop.page.click(f"#tour-next:text-is('{button}'):not([aria-busy=true])")
        await shop.shows(line)
    await shop.page.click("#tour-next:text-is('Start over')")
    await shop.page.wait_for_selector("#tour-next:text-is('Log in as Pat')")

    assert await shop.profile() == {}
