"""The document of the API says what the hub does."""

import re
import warnings
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

import partnerenrich_server.hub as hub_package
from partnerenrich_server.hub.openapi import DOCUMENT
from partnerenrich_server.hub.protocol import HEAD_BYTES


def test_every_path_is_described_and_every_description_has_its_path(hub):
    assert {route.path for route in hub.app.routes if isinstance(route, Route)} == DOCUMENT["paths"].keys()


async def test_every_described_method_is_answered_and_no_other(hub):
    for path, operations in DOCUMENT["paths"].items():
        for method in ("get", "post", "put", "delete", "patch"):
            answer = await hub.client.request(method, f"{hub.url}{path}")

            assert (answer.status_code == 405) == (method not in operations), (method, path)


@pytest.mark.parametrize("path", DOCUMENT["paths"])
async def test_what_any_request_may_meet_is_described(hub, path):
    """A method that the path has not, and a head that is too long."""
    [described] = DOCUMENT["paths"][path].values()
    answers = [
        await hub.client.delete(f"{hub.url}{path}"),
        await hub.client.get(f"{hub.url}{path}", headers={"x-long": "x" * HEAD_BYTES}),
    ]

    assert [answer.status_code for answer in answers] == [405, 431]
    assert {"400", "405", "408", "431", "500"} <= described["responses"].keys()


def test_every_refusal_is_described():
    """Each status with which the code of the hub refuses."""
    sources = "".join(path.read_text("utf-8") for path in Path(hub_package.__file__).parent.glob("*.py"))

    assert set(re.findall(r"Refused\(\s*(\d+)", sources)) | {"500"} == DOCUMENT["components"]["responses"].keys()


async def test_the_hub_serves_it(hub):
    assert (await hub.client.get(f"{hub.url}/openapi.json")).json() == DOCUMENT


OPERATIONS = [result.ok() for result in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
MEANT = {501, 503}


@pytest.fixture(name="raw")
def _raw(raw):
    raw["hub"]["limits"] = {"visitor_per_minute": 1_000_000, "address_per_minute": 1_000_000}
    return raw


@pytest.mark.parametrize(
    ("operation", "mode"),
    [(each, GenerationMode.POSITIVE) for each in OPERATIONS]
    + [(each, GenerationMode.NEGATIVE) for each in OPERATIONS if each.query or each.body],
    ids=lambda value: getattr(value, "label", getattr(value, "value", None)),
)
def test_no_request_makes_the_hub_fail(hub_in_a_thread, operation, mode):
    """Made from the document, as it says and as it does not; from a page of the shop and from nowhere."""
    headers = {"Origin": "https://www.shop.example", "Cookie": "_dfdid=0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"}

    @settings(max_examples=25, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
    @given(st.data(), st.booleans())
    def answers(data, from_a_page):
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if from_a_page:
            case.query = {**(case.query or {}), "key": "pk-shop"}
        response = case.call(base_url=hub_in_a_thread, headers=headers if from_a_page else None, timeout=10)
        if response.status_code >= 500:
            assert response.status_code in MEANT
        if response.status_code >= 400:
            assert response.json().keys() == {"error"}
        case.validate_response(
            response, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tool speaks of what it cannot generate
        answers()
