"""However a page loads the library, it works, and the page stays as it was."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

HUNTER = {"amperity": {"Persona": "Value Hunter"}}
SCRIPT = '<script src="{hub.url}/datafly.js" data-key="{hub.key}" data-timeout="8000" {attributes}></script>'
VIOLATIONS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective));
"""


@pytest.mark.parametrize("attributes", ["", "defer", "async", "type=module"])
async def test_the_script_may_stand_anywhere(hub, visit, attributes):
    """In the head or at the end of the body, of any kind."""
    hub.will("/v1/enrich", hub.says(HUNTER))
    script = SCRIPT.format(hub=hub, attributes=attributes)

    page = await visit(html=f"<!doctype html><head>{script}<title>Shop</title></head><body><main></main></body>")
    head = await page.evaluate("datafly.onProfileReady()")
    await page.evaluate("sessionStorage.clear()")
    await visit(page=page, html=f"<!doctype html><head><title>Shop</title></head><body><main></main>{script}</body>")
    end = await page.evaluate("datafly.onProfileReady()")

    assert (head, end) == (HUNTER, HUNTER)
    assert len(hub.to("/v1/enrich")) == 2


async def test_a_tag_manager_may_put_the_script_in_and_out(hub, visit):
    """The tag is known while it runs, even when no page holds it any more."""
    hub.will("/v1/enrich", hub.says(HUNTER))

    page = await visit(
        html=f"""<!doctype html><script>
        const tag = document.createElement('script');
        tag.src = '{hub.url}/datafly.js'; tag.dataset.key = '{hub.key}';
        document.head.append(tag); tag.remove();
        </script>"""
    )
    await page.wait_for_function("window.datafly")

    assert await page.evaluate("datafly.onProfileReady()") == HUNTER


async def test_the_hub_may_be_named(hub, visit):
    """The script may come from the shop's own host."""
    page = await visit(tag=f'defer data-hub="{hub.url}/proxied//"')
    await page.evaluate("datafly.onProfileReady()")

    assert [call.path for call in hub.calls] == ["/proxied/v1/enrich"]


async def test_a_key_is_quoted(hub, visit):
    hub.key = "a&b=c d"
    page = await visit()
    await page.evaluate("datafly.onProfileReady()")

    assert hub.calls[0].query == {"key": "a&b=c d"}


async def test_an_element_of_the_page_cannot_pose_as_the_script(hub, visit):
    """Markup of others, such as a review, may carry a name; it must not send events elsewhere."""
    image = '<img name="currentScript" data-hub="https://other.example.test" data-key="pk-other">'
    page = await visit(html=f"<!doctype html>{image}{SCRIPT.format(hub=hub, attributes='')}")
    await page.evaluate("datafly.onProfileReady()")

    assert [call.query for call in hub.calls] == [{"key": hub.key}]


async def test_loaded_twice_it_is_one(hub, visit):
    page = await visit("<script>window.once = window.datafly</script>", tag="")
    await page.evaluate("datafly.onProfileReady()")
    await page.add_script_tag(url=f"{hub.url}/datafly.js")
    await hub.quiet()

    assert await page.evaluate("datafly === once && _df === once")
    assert len(hub.to("/v1/enrich")) == 1


async def test_calls_made_before_it_came_are_replayed(hub, visit):
    """In order, and hydration is for the person that they name; `push` goes on to work."""
    hub.will("/v1/enrich", hub.says(HUNTER))
    early = """<script>
    window.datafly = window.datafly || [];
    datafly.push(['identify', 'user-1']);
    datafly.push(['onProfileReady', (profile) => { window.shown = profile }]);
    datafly.push(['track', 'Early', {value: 1}]);
    </script>"""

    page = await visit(html=f"<!doctype html>{early}{SCRIPT.format(hub=hub, attributes='async')}")
    await page.wait_for_function("window.shown")
    await page.evaluate("datafly.push(['track', 'Late'])")
    await hub.until(lambda: len(hub.events) == 3)

    assert await page.evaluate("shown") == HUNTER
    assert [call.path for call in hub.calls if call.path != "/v1/batch"][:1] == ["/v1/events"]
    assert [event.get("event") for event in hub.events] == [None, "Early", "Late"]
    assert len(hub.to("/v1/enrich")) == 1


async def test_a_call_that_is_none_is_refused_with_a_word(visit):
    page = await visit()
    async with page.expect_console_message() as line:
        await page.evaluate("datafly.push('track')")

    assert (await line.value).text == "datafly: push needs [method, ...values]"


async def test_it_works_under_a_strict_content_security_policy(hub, visit, site, context, expected_errors):
    """Scripts and connections of the hub are all that it needs. The inline script shows that the policy holds."""
    expected_errors.append("Executing inline script violates")
    await context.add_init_script(VIOLATIONS)
    site.headers = {
        "Content-Security-Policy": f"default-src 'none'; script-src {hub.url}; connect-src {hub.url};"
        " base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    }
    hub.will("/v1/enrich", hub.says(HUNTER))

    page = await visit("<script>window.inline = true</script>")
    profile = await page.evaluate("datafly.onProfileReady()")
    await page.evaluate("datafly.identify('user-1', {plan: 'gold'}); datafly.track('a'); datafly.reset()")
    await page.evaluate("datafly.refreshProfile()")

    assert profile == HUNTER
    assert await page.evaluate("[violations, window.inline]") == [["script-src-elem"], None]


async def test_it_leaves_the_page_as_it_was(hub, visit):
    """Two names in the window, no cookie, no element."""
    html = "<!doctype html><title>Shop</title>{}<main></main>"
    page = await visit(html=html.format(""))
    before = await page.evaluate("[Object.keys(window), document.querySelectorAll('*').length]")
    await visit(page=page, html=html.format(SCRIPT.format(hub=hub, attributes="")))
    await page.evaluate("datafly.identify('user-1'); datafly.refreshProfile()")
    after = await page.evaluate("[Object.keys(window), document.querySelectorAll('*').length]")

    assert set(after[0]) - set(before[0]) == {"datafly", "_df"}
    assert after[1] == before[1] + 1
    assert await page.evaluate("document.cookie") == ""
