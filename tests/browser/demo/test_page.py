"""The page of the demo keeps to what it promises: strict, quiet, steady, usable by everybody."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

GENERAL = "Made for weather"

CONTRAST = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const part = (c) => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
        const [x, y, z] = [r, g, b].map((c) => part(c / 255));
        return .2126 * x + .7152 * y + .0722 * z;
    };
    const behind = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = numbers(getComputedStyle(each).backgroundColor);
            if (colour.length === 3) return colour;
            if (colour[3] > 0) throw Error(`half transparent: ${each.className}`);
        }
        throw Error('no background');
    };
    const poor = [];
    let checked = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility({visibilityProperty: true})) continue;
        if (element.closest('.unseen, script, .card > [hidden]')) continue;
        const style = getComputedStyle(element);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const [dark, bright] = [light(numbers(style.color)), light(behind(element))].sort((a, b) => a - b);
        const ratio = (bright + .05) / (dark + .05);
        checked += 1;
        if (ratio < (large ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)} ${walker.currentNode.data.trim()}`);
    }
    return [checked, poor];
}"""

SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
    for (const entry of list.getEntries())
        for (const {node} of entry.sources) {
            const place = node?.parentElement?.closest('.shop [id], .shop');
            if (place) shifts.push(`${node.id || node.nodeName} in ${place.id || 'shop'}: ${entry.value}`);
        }
}).observe({type: 'layout-shift', buffered: true});
"""

LATE = """async () => {
    const {catchUp} = await import('/shop/customer.js');
    await datafly.refreshProfile();
    catchUp();
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return document.querySelector('#hero').dataset.variant;
}"""

UNDO = """() => {
    const moved = [];
    const parts = [...document.querySelectorAll('.shelf li, .shelf li > *')];
    const place = (each) => [each.getBoundingClientRect().x, each.getBoundingClientRect().y].map(Math.round).join();
    while (parts.length) {
        const last = parts.pop();
        const before = parts.map(place);
        last.remove();
        moved.push(...parts.filter((each, at) => place(each) !== before[at]).map((each) => each.outerHTML));
    }
    return moved;
}"""

SIZES = pytest.mark.parametrize(
    "size", [{"width": 390, "height": 844}, {"width": 1440, "height": 900}], ids=["phone", "desktop"]
)


async def walk(shop) -> None:
    """Through most of what the page can do."""
    await shop.open()
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")
    await shop.page.click(".add")
    await shop.log_in("Sam")
    await shop.page.click("#forge")
    await shop.page.wait_for_selector("#account:text-is('Log in')")
    await shop.ready()


async def test_the_policy_is_strict_and_holds(shop):
    """Nothing of the page breaks it. The inline script shows that it is in force."""
    await walk(shop)
    policy = (await shop.page.request.get(shop.url)).headers["content-security-policy"]
    clean = await shop.page.evaluate("violations")
    await shop.page.evaluate(
        """() => {
            const style = document.createElement('style');
            style.textContent = 'body { display: none }';
            document.head.append(style);
        }"""
    )
    await shop.page.wait_for_function("() => violations.length")

    assert clean == []
    assert await shop.page.evaluate("violations") == ["style-src-elem"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_nothing_secret_reaches_the_browser(shop, configurations):
    """No credential, no secret, no partner id and no attribute beyond the allowlist: in answers, storage or console."""
    answers = []

    async def keep(route):
        response = await route.fetch()
        headers = {name: value for name, value in response.headers.items() if name != "set-cookie"}
        answers.append(f"{route.request.url} {headers} {await response.text()}")
        await route.fulfill(response=response)

    await shop.page.route("**", keep)
    await walk(shop)
    told = "\n".join([*answers, *shop.console, await shop.stored(), await shop.page.content()])
    [configured] = configurations
    secrets = {
        "credential-canary-0123456789",
        "partner-id-canary",
        "hidden-attribute-canary",
        configured["hub"]["identity_secret"],
    }

    assert "Value Hunter" in told
    assert {word for word in secrets if word in told} == set()
    assert [name for name in ("pat@example.test", "sam@example.test") if name in await shop.stored()] == []
    assert shop.console == []


async def test_a_page_that_reads_too_often_goes_on(shop):
    """What the hub refuses, the panel tells; the shop stays a shop."""
    await shop.open()
    await shop.page.route(
        "**/v1/enrich*", lambda route: route.fulfill(status=429, headers={"Retry-After": "60"}, body="{}")
    )
    await shop.log_in("Pat")
    await shop.page.click(".add")

    assert (await shop.hero(), await shop.page.inner_text("#basket")) == ("Hello, Pat", "1")


class TestALimit:
    @pytest.fixture(name="limits")
    def _limits(self):
        return {"visitor_per_minute": 2}

    async def test_of_the_hub_is_told(self, shop):
        await shop.open()
        await shop.log_in("Pat")
        for _ in range(3):
            await shop.open()
        await shop.page.wait_for_selector("#notice:not([hidden])")

        assert await shop.hero() in {"For you: Value Hunter", "Hello, Pat"}
        assert await shop.page.inner_text("#notice") == (
            "Too many profile reads in this minute: the hub has refused some."
        )


async def test_a_hub_that_hangs_blocks_nothing(shop):
    """The page is there within the budget, a log-in too, and the basket works meanwhile."""
    await shop.hold("/v1/")
    await shop.open()
    await shop.log_in("Pat")
    await shop.page.click(".add")

    assert (await shop.hero(), await shop.page.inner_text("#basket")) == ("Hello, Pat", "1")


async def test_without_the_library_it_is_still_a_shop(shop):
    await shop.page.route("**/datafly.js", lambda route: route.abort())
    await shop.open()
    await shop.page.click(".add")

    assert (await shop.hero(), await shop.page.inner_text("#basket")) == (GENERAL, "1")
    assert all("Failed to load resource" in line for line in shop.console)


@SIZES
async def test_nothing_moves_and_nothing_sticks_out(shop):
    """Not when the page loads, not when the person changes."""
    await shop.page.context.add_init_script(SHIFTS)
    await walk(shop)
    wide = await shop.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    small = await shop.page.evaluate(
        """() => [...document.querySelectorAll('button, a[href], label')]
            .filter((each) => each.checkVisibility() && !each.matches('.skip, .foot a'))
            .filter((each) => each.getBoundingClientRect().height < 35)
            .map((each) => each.textContent.trim())"""
    )

    assert await shop.page.evaluate("shifts") == []
    assert wide <= 0
    assert small == []


@SIZES
async def test_nothing_moves_for_a_late_answer_whatever_it_says(shop):
    """Neither for any of the pictures nor for a value of many words or without a space."""
    await shop.page.context.add_init_script(SHIFTS)
    await shop.open()
    await shop.log_in("Nobody")
    await shop.shows("Hello, Nobody")
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")
    pictures, answer = set(), {}
    await shop.page.route("**/v1/enrich*", lambda route: route.fulfill(json=answer))
    for value in (*"abcdef", "", "Rambler of every weekend " * 5, "Rambler" * 12, ""):
        answer["club"] = {"Persona": value, "Tier": 2}
        pictures.add(await shop.page.evaluate(LATE))

    assert pictures == set("0123456")
    assert await shop.page.evaluate("shifts") == []
    assert await shop.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@SIZES
async def test_nothing_moves_while_the_page_still_comes_in(shop):
    """What is for sale stands in its place, however little of what follows is there."""
    await shop.open()

    assert await shop.page.evaluate(UNDO) == []


async def test_all_text_has_enough_contrast(shop):
    """In every picture of the hero, with a partner down and with the dialog open."""
    await walk(shop)
    await shop.page.click("#partners label")
    await shop.page.wait_for_selector("#partners .down")
    found = []
    for variant in range(7):
        await shop.page.evaluate("(n) => { document.querySelector('#hero').dataset.variant = n; }", variant)
        found.append(await shop.page.evaluate(CONTRAST))
    await shop.page.click("#account")
    found.append(await shop.page.evaluate(CONTRAST))

    assert all(checked > 50 for checked, _ in found)
    assert [poor for _, poor in found] == [[]] * 8


async def test_it_works_with_the_keyboard_alone(shop):
    """Each stop is seen, has a name, and the dialog gives the focus back."""
    keyboard = shop.page.keyboard
    await shop.open()
    stops = []
    for _ in range(40):
        await keyboard.press("Tab")
        stop = await shop.page.evaluate(
            """() => {
                const each = document.activeElement;
                const mark = each.matches('.switch input') ? each.nextElementSibling : each;
                const {outlineStyle, outlineWidth} = getComputedStyle(mark);
                const label = each.labels?.[0]?.textContent ?? each.getAttribute('aria-label') ?? each.textContent;
                return [each === document.body, label.trim(), outlineStyle, outlineWidth];
            }"""
        )
        if stop[0]:
            break
        stops.append(stop[1:])
    await shop.page.focus("#account")
    await keyboard.press("Enter")
    inside = await shop.page.evaluate("document.querySelector('#log-in').contains(document.activeElement)")
    await keyboard.press("Enter")
    await shop.shows("For you: Value Hunter")

    assert stops[0][0] == "Skip to the tour"
    assert len(stops) >= 10
    assert [stop for stop in stops if not stop[0] or stop[1:] != ["solid", "3px"]] == []
    assert inside
    assert await shop.page.evaluate("document.activeElement.id") == "account"


async def test_a_change_is_said_to_those_who_do_not_see_it(shop):
    await shop.open()
    await shop.log_in("Pat")
    await shop.shows("For you: Value Hunter")

    assert await shop.page.inner_text("[role=status]") == "The page is now for: Value Hunter"


async def test_who_wants_no_motion_gets_none(visitor):
    async with visitor(reduced_motion="reduce") as still, visitor(reduced_motion="no-preference") as moving:
        moves = []
        for shop in (still, moving):
            await shop.open()
            moves.append(
                await shop.page.evaluate(
                    """() => [...document.querySelectorAll('*')].map((each) => getComputedStyle(each)).filter(
                        (style) => style.transitionDuration !== '0s' || style.animationName !== 'none').length"""
                )
            )

    assert moves[0] == 0
    assert moves[1] > 10
