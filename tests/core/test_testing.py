"""The conformance kit passes what is right, and fails each broken plugin on the check that is meant for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import httpcore  # noqa: F401 - httpx imports it late, and a run of the kit in this process would then bring a second one
import httpx
import pytest

import partnerenrich.testing.contract  # noqa: F401 - imported once, and not anew for each run of the kit
from partnerenrich.testing.faults import MODES, Fault, FaultMiddleware
from partnerenrich.testing.loopback import served

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.real_time

BROKEN = Path(__file__).parent / "broken_plugins"
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

HOOKS = ("check", "resolve_id", "fetch_attributes")
DEADLINES = ("timeout", "slow_drip")
NONSENSE = ("bad_json", "wrong_shape", "wrong_content_type")


# The kit on sample plugins


@pytest.fixture(name="kit")
def _kit(pytester, monkeypatch):
    """Runs a test module in a pytest of its own: what passed, what failed and why."""
    monkeypatch.setattr("partnerenrich.testing.contract.HURRIED", 0.05)
    pytester.syspathinsert(BROKEN)
    pytester.makeini(
        "[pytest]\nfilterwarnings = error\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function"
    )

    def run(source: str) -> tuple[set[str], dict[str, str]]:
        pytester.makepyfile(source)
        passed, _, failed = pytester.inline_run("-p", "no:cacheprovider").listoutcomes()
        return set(map(name_of, passed)), {name_of(report): str(report.longrepr) for report in failed}

    return run


def name_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.nodeid.rpartition("::")[2]


def suite_for(name: str) -> str:
    return f"""
        from {name} import plugin as the_plugin
        from partnerenrich.testing import PluginContract

        class TestPlugin(PluginContract):
            provider = "club"
            plugin = the_plugin
    """


def of(test: str, *parameters: tuple[str, ...]) -> set[str]:
    """Names of one check with every combination of its parameters."""
    return {f"{test}[{'-'.join(combination)}]" for combination in product(*parameters)}


def test_a_right_plugin_passes_every_check(kit):
    """None is skipped but for the hook and the kind of visitor that it does not have."""
    passed, failed = kit(suite_for("club"))

    assert failed == {}
    assert len(passed) == 69


def test_a_right_plugin_that_is_asked_in_bulk_passes_every_check(kit):
    """Though it has no other hook: it is asked about one link at a time where a check needs one."""
    passed, failed = kit(suite_for("bulk_club"))

    assert failed == {}
    assert len(passed) == 32


def test_a_right_plugin_with_opted_out_visitors_passes_more_checks(kit):
    """Those for visitors who do not want to be known."""
    passed, failed = kit(suite_for("leavers"))

    assert failed == {}
    assert {name for name in passed if "opted_out" in name} == {
        "test_opted_out_visitors_are_told",
        "test_opted_out_answers_hold_nothing",
        "test_opted_out_visitors_show_nowhere",
    }


@pytest.mark.parametrize(
    ("name", "failing"),
    [
        ("sync_hook", {"test_plugin_loads"}),
        ("misspelt_hook", {"test_plugin_loads"}),
        ("plain_credential", {"test_credentials_are_secret"}),
        ("short_canaries", {"test_planted_values_can_be_told_from_chance"}),
        ("shows_key_in_str", {"test_reprs_show_nothing"}),
        ("leaks_key_in_error", of("test_errors_show_nothing", HOOKS)),
        ("leaks_answer_in_error", of("test_errors_show_nothing", HOOKS)),
        ("logs_email", {"test_logs_show_nothing[resolve_id]"}),
        ("logs_url_aside", of("test_logs_show_nothing", ("resolve_id", "fetch_attributes"))),
        ("prints_profile", {"test_logs_show_nothing[fetch_attributes]"}),
        ("leaver_as_absent", {"test_opted_out_visitors_are_told"}),
        ("profile_of_a_leaver", {"test_opted_out_answers_hold_nothing"}),
        ("names_a_leaver", {"test_opted_out_visitors_show_nowhere"}),
        ("absent_as_error", {"test_unknown_visitors_are_absent"}),
        ("refused_as_absent", of("test_refused_credential", ("unauthorized", "forbidden"), ("resolve_id",))),
        ("down_as_absent", of("test_partner_is_down", ("server_error", "unavailable"), ("resolve_id",))),
        ("nonsense_as_absent", of("test_nonsense", NONSENSE, ("resolve_id",))),
        ("text_attributes", {"test_attributes_are_json"}),
        ("odd_attributes", {"test_attributes_are_json"}),
        ("ignores_retry_after", of("test_retry_after", HOOKS)),
        ("follows_redirects", of("test_redirect", HOOKS)),
        (
            "own_client",  # has no cap
            of("test_lent_client_makes_all_requests", HOOKS) | of("test_endless_answer", ("check", "fetch_attributes")),
        ),
        (
            "blocking_client",  # ends when the partner wishes
            {"test_lent_client_makes_all_requests[check]", "test_cancellation[check]"}
            | of("test_deadline", DEADLINES, ("check",)),
        ),
        (
            "catches_cancellation",  # which is also how a deadline ends a call
            {"test_cancellation[resolve_id]"} | of("test_deadline", DEADLINES, ("resolve_id",)),
        ),
        ("leaves_a_task", {"test_cancellation[check]"} | of("test_deadline", DEADLINES, ("check",))),
        (
            "checks_nothing",  # so nothing that goes wrong is seen
            {"test_check_refuses_a_wrong_credential", "test_rate_limit[check]", "test_retry_after[check]"}
            | {"test_endless_answer[check]", "test_redirect[check]", "test_cancellation[check]"}
            | of("test_refused_credential", ("unauthorized", "forbidden"), ("check",))
            | of("test_partner_is_down", ("server_error", "unavailable"), ("check",))
            | of("test_cut_connection", ("truncated", "drop"), ("check",))
            | of("test_deadline", DEADLINES, ("check",))
            | of("test_nonsense", NONSENSE, ("check",)),
        ),
        ("bulk_without_order", {"test_bulk_keeps_the_order"}),
        (
            "bulk_leaves_out_unknown",
            {"test_bulk_answers_each_link", "test_unknown_visitors_are_absent", "test_bulk_takes_a_full_call"},
        ),
        (
            "bulk_odd_answers",
            {"test_bulk_answers_each_link", "test_known_visitors_are_found", "test_unknown_visitors_are_absent"},
        ),
        ("bulk_all_or_nothing", {"test_bulk_bad_link_fails_alone"}),
        ("bulk_shows_link", {"test_bulk_bad_link_fails_alone"}),
        ("bulk_promises_too_much", {"test_bulk_takes_a_full_call"}),
        ("bulk_one_by_one", {"test_bulk_takes_a_full_call"}),
        ("bulk_disagrees", {"test_bulk_and_single_agree"}),
    ],
)
def test_a_broken_plugin_fails_where_it_is_broken(kit, name, failing):
    """And on no other check, so that the name of the check says what to mend."""
    _, failed = kit(suite_for(name))

    assert set(failed) == failing


def test_every_broken_plugin_is_tried():
    """None lies there unused."""
    (tried,) = [{case[0] for case in mark.args[1]} for mark in test_a_broken_plugin_fails_where_it_is_broken.pytestmark]

    assert {path.stem for path in BROKEN.glob("*.py")} - {"club", "bulk_club", "leavers"} == tried


HANDLERS = f"""
    from pathlib import Path
    import httpx
    from partnerenrich.testing import PluginContract

    class TestLoyalty(PluginContract):
        plugin = Path({str(EXAMPLES / "loyalty.py")!r})
        settings = {{"base_url": "https://loyalty.example.test/v1", "api_key": "a-key-for-tests"}}

        def found(self, request):
            assert request.headers["X-Api-Key"] == "a-key-for-tests"
            assert request.url.host == "loyalty.example.test"
            if request.url.path == "/v1/members":
                assert request.url.params["email"] == "pat@example.test"
                return httpx.Response(200, json={{"id": 4711}})
            assert request.url.path == "/v1/profiles"
            assert request.url.params["id"] == "4711"
            return httpx.Response(200, json={{"Tier": "Gold for life"}})

        def unknown(self, request):
            return httpx.Response(404)
"""


def test_two_handlers_may_stand_for_a_partner(kit):
    """The partner of the guide, one file without a sandbox, keeps the contract; it is the size that we promise."""
    passed, failed = kit(HANDLERS)

    assert failed == {}
    assert {
        "test_known_visitors_are_found",
        "test_attributes_are_json",
        "test_errors_show_nothing[resolve_id]",
    } < passed
    assert len((EXAMPLES / "loyalty.py").read_text("utf-8").splitlines()) <= 40


DROP_BOX = """
    import attrs
    import httpx
    from partnerenrich import Delivery, Partner, Receipt, Secret, hookimpl
    from partnerenrich.http import json_object, raise_for_status
    from partnerenrich.testing import PluginContract

    BLUEPRINT = "global: {mappings: [{source: $traits.email, target: email, transform: sha256}]}"

    @attrs.frozen(kw_only=True)
    class Config:
        base_url: str
        api_key: Secret

    class DropBox:
        @hookimpl
        def partner(self):
            delivery = Delivery(formats=("csv",), default_blueprint=BLUEPRINT)
            return Partner(title="Drop box", config=Config, delivery=delivery)

        @hookimpl
        async def deliver_batch(self, config, http, batch):
            (record,) = batch.rows()
            assert batch.open(batch.files[0]).read() == f"email\\n{record['email']}\\n".encode()
            await batch.save({"kept": SAVED})
            response = await http.post(
                config.base_url, json=record, headers={"Authorization": config.api_key.reveal()}
            )
            raise_for_status(response)
            return Receipt("handed_over", partner_ref=json_object(response)["id"])

    class TestDropBox(PluginContract):
        provider = "drop_box"
        plugin = DropBox()
        settings = {"base_url": "https://drop.example.test", "api_key": "a-key-for-tests"}

        def found(self, request):
            return httpx.Response(200, json={"id": "drop-1"})

        def unknown(self, request):
            return httpx.Response(404)
"""


def test_a_plugin_that_only_delivers_is_driven_too(kit):
    """A batch is made of the known visitors, by the partner's own blueprint, and meets every fault."""
    passed, failed = kit(DROP_BOX.replace("SAVED", '"drop-1"'))

    assert failed == {}
    assert {"test_batch_is_taken", "test_rate_limit[deliver_batch]", "test_logs_show_nothing[deliver_batch]"} < passed


def test_a_record_in_the_progress_is_seen(kit):
    """What a plugin saves lasts in a database, and has no value of a person."""
    _, failed = kit(DROP_BOX.replace("SAVED", "record"))

    assert set(failed) == {"test_batch_is_taken"}
    assert "progress shows record[0].email" in failed["test_batch_is_taken"]


def test_settings_that_the_plugin_refuses_are_told(kit):
    """The field is named, and checks that need settings are skipped."""
    _, failed = kit(HANDLERS.replace('"api_key"', '"apikey"'))

    assert set(failed) == {"test_good_settings_are_accepted"}
    assert "settings.apikey: unknown field; did you mean 'api_key'?" in failed["test_good_settings_are_accepted"]


def test_a_plugin_that_is_not_installed_is_told(kit):
    _, failed = kit(
        """
        from partnerenrich.testing import PluginContract

        class TestNowhere(PluginContract):
            provider = "nowhere"
        """
    )

    assert set(failed) == {"test_plugin_loads"}
    assert "no plugin 'nowhere' is installed" in failed["test_plugin_loads"]


def test_a_plugin_without_an_imitation_is_told(kit):
    """A suite that cannot drive the plugin does not pass."""
    _, failed = kit(HANDLERS[: HANDLERS.index("        def found")])

    assert "give loyalty a sandbox() hook, or TestLoyalty the methods found and unknown" in next(iter(failed.values()))


# Faults


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello from " + scope["path"].encode()})


@pytest.fixture(name="faults")
def _faults():
    return FaultMiddleware(hello)


@pytest.fixture(name="client")
async def _client(faults):
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(faults), base_url="http://sandbox.example.test"
    ) as client:
        yield client


@pytest.fixture(name="socket")
async def _socket(faults):
    """A client of the same application on a real socket."""
    with served(faults) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=False) as client:
            yield client


async def ask(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post(
        "/members?mail=pat@example.test", headers={"Authorization": "Bearer k"}, json={"a": "b-in-the-body"}
    )


@pytest.mark.parametrize(
    ("mode", "status"),
    [
        ("unauthorized", 401),
        ("forbidden", 403),
        ("not_found", 404),
        ("rate_limited", 429),
        ("rate_limited_retry_after", 429),
        ("server_error", 500),
        ("unavailable", 503),
        ("redirect", 302),
        ("bad_json", 200),
        ("wrong_shape", 200),
        ("wrong_content_type", 200),
        ("oversized", 200),
    ],
)
async def test_an_answer_repeats_the_request(client, mode, status):
    """As the bodies of real partners do: what leaks from them, shows."""
    assert (await client.post("/_faults", json={"mode": mode, "size": 100_000})).status_code == 200

    response = await ask(client)

    assert response.status_code == status
    for part in ("/members", "mail=pat@example.test", "Bearer k", "b-in-the-body"):
        assert part in response.text
    assert (await ask(client)).text == "hello from /members"


async def test_headers_of_a_fault_can_be_set(client):
    await client.post("/_faults", json={"mode": "rate_limited_retry_after", "retry_after": 9})
    assert (await ask(client)).headers["Retry-After"] == "9"

    await client.post("/_faults", json={"mode": "rate_limited"})
    assert "Retry-After" not in (await ask(client)).headers

    await client.post("/_faults", json={"mode": "redirect"})
    assert (await ask(client)).headers["Location"] == "http://elsewhere.invalid/"


async def test_bodies_are_what_their_modes_say(client):
    await client.post("/_faults", json={"mode": "bad_json"})
    with pytest.raises(ValueError, match="Expecting"):
        (await ask(client)).json()

    await client.post("/_faults", json={"mode": "wrong_shape"})
    assert isinstance((await ask(client)).json(), str)

    await client.post("/_faults", json={"mode": "wrong_content_type"})
    assert (await ask(client)).headers["Content-Type"] == "text/html"

    await client.post("/_faults", json={"mode": "oversized", "size": 3_000_000})
    response = await ask(client)
    assert len(response.content) > 3_000_000
    assert "Content-Length" not in response.headers
    assert response.json()


async def test_a_fault_lasts_as_often_as_told(client):
    await client.post("/_faults", json={"mode": "unavailable", "times": 2})
    assert [(await ask(client)).status_code for _ in range(3)] == [503, 503, 200]

    await client.post("/_faults", json={"mode": "unavailable", "times": None})
    assert [(await ask(client)).status_code for _ in range(5)] == [503] * 5
    assert (await client.delete("/_faults")).json()["fault"] is None
    assert (await ask(client)).status_code == 200


async def test_what_is_armed_is_shown(client):
    """Control requests neither meet the fault nor count."""
    await client.post("/_faults", json={"mode": "timeout", "times": 3})

    shown = (await client.get("/_faults")).json()

    assert (shown["fault"]["mode"], shown["fault"]["times"]) == ("timeout", 3)
    assert tuple(shown["modes"]) == MODES


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"mode": "explode"}', MODES),
        (b'{"mode": "drop", "time": 2}', ["time: unknown field; did you mean 'times'?"]),
        (b'{"mode": "drop", "times": 0}', ["times: must be between 1 and"]),
        (b'["drop"]', ["must be a mapping"]),
        (b"drop", ["must be JSON"]),
    ],
    ids=["mode", "field", "times", "list", "text"],
)
async def test_a_wrong_order_is_refused_with_the_way_out(client, body, words):
    response = await client.post("/_faults", content=body)

    assert response.status_code == 400
    assert all(word in response.json()["error"] for word in words)
    assert (await ask(client)).status_code == 200


async def test_other_methods_are_refused(client):
    response = await client.put("/_faults", json={})

    assert (response.status_code, response.headers["Allow"]) == (405, "GET, POST, DELETE")


async def test_control_lies_below_the_root_path(faults):
    """Where the application is mounted, so that each sandbox of a server has its own."""
    transport = httpx.ASGITransport(faults, root_path="/club")
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox.example.test") as client:
        await client.post("/club/_faults", json={"mode": "forbidden"})
        assert (await client.get("/club/members")).status_code == 403


async def test_latency_alone_delays_a_right_answer(client):
    await client.post("/_faults", json={"latency_ms": 60, "times": None})
    started = time.monotonic()

    response = await ask(client)

    assert response.text == "hello from /members"
    assert time.monotonic() - started >= 0.06


@pytest.mark.parametrize("mode", ["truncated", "drop"])
async def test_a_cut_connection_is_no_answer(socket, faults, mode):
    faults.arm(Fault(mode=mode))

    with pytest.raises(httpx.RemoteProtocolError):
        await ask(socket)

    assert (await ask(socket)).status_code == 200


async def test_a_hang_ends_when_the_client_leaves():
    """Nothing of it stays behind in the server."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    faults = FaultMiddleware(hello)
    faults.arm(Fault(mode="timeout"))

    async def watched(scope, receive, send):
        await faults(scope, receive, send)
        loop.call_soon_threadsafe(ended.set)

    with served(watched) as port:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=httpx.Timeout(5, read=0.05), verify=False
        ) as client:
            ended.clear()  # the server's own start and stop pass here, too
            with pytest.raises(httpx.ReadTimeout):
                await ask(client)
            await asyncio.wait_for(ended.wait(), 5)


async def test_a_slow_drip_outlasts_every_timeout_between_two_bytes(socket, faults):
    """Only a deadline for the whole call ends it."""
    faults.arm(Fault(mode="slow_drip", interval=0.02))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await ask(socket)


async def test_a_slow_drip_and_a_hang_end_by_themselves(socket, faults):
    """Where a client would wait for ever."""
    faults.arm(Fault(mode="slow_drip", interval=0.02, lasts=0.1))
    assert (await ask(socket)).json() == {}

    faults.arm(Fault(mode="timeout", lasts=0.1))
    assert (await ask(socket)).status_code == 500


def test_faults_need_nothing_but_the_core():
    """The kit's own needs are imported with `PluginContract` alone."""
    missing = ("pytest", "starlette", "uvicorn")
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in missing)

    subprocess.run(
        [sys.executable, "-c", f"import sys; {blocked}import partnerenrich.testing.faults, partnerenrich.testing"],
        check=True,
    )
