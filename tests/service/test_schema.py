"""Requests that schemathesis makes of the OpenAPI document: what is promised there is what a real server answers."""

import httpx
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from service.app import create_app
from service.settings import Settings

schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi())


@schema.exclude(path_regex="^/v1/").parametrize()  # the same two routes again
@settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_documented(case: schemathesis.Case, server: httpx.Client) -> None:
    case.headers.pop(
        "X-Request-Timeout", None
    )  # a tiny one rightly ends in a 504, which is a server error to the check
    response = case.call(base_url=str(server.base_url), timeout=30)
    checks = [not_a_server_error, content_type_conformance, response_schema_conformance]
    case.validate_response(response, checks=checks)


def test_the_document_is_the_one_that_is_served(server: httpx.Client) -> None:
    assert server.get("/openapi.json").json() == schema.raw_schema
