"""Every expression of the alerts and the dashboard asks for what a real server's /metrics answers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from models.data import load_dataset
from models.image_files import encode_png
from service.errors import OverloadedError

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"
RULES = [rule for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"] for rule in group["rules"]]
PANELS = json.loads((MONITORING / "grafana" / "limpid.json").read_text())["panels"]
EXPRESSIONS = {rule.get("record") or rule["alert"]: rule["expr"] for rule in RULES} | {
    f"panel {panel['id']}{target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
OF_PROMETHEUS = {"job", "instance"}
"""Labels that the scrape adds."""
DEFENCE = {"/classify", "/purify", "/restore"}
"""Of both prefixes: the label does not tell /v1/classify apart."""
Exported = dict[str, dict[str, set[str]]]
"""Names of series, their labels, and the labels' values."""


@pytest.fixture(scope="module")
def exported(server: httpx.Client) -> Exported:
    """What a server exports that has answered and refused: counters with labels begin with their first event."""
    png = encode_png(load_dataset("digits", "test").images[0])
    raw = {"Content-Type": "image/png"}
    for path in ("/classify", "/v1/classify", "/purify"):
        assert server.post(f"{path}?steps=2", content=png, headers=raw).status_code == 200
    files = {"image": ("a.png", png), "mask": ("m.png", png)}
    assert server.post("/restore?steps=2", files=files).status_code == 200
    assert server.post("/classify", content=png[:80], headers=raw).status_code == 422
    assert server.post("/classify?steps=2", content=b"", headers=raw).status_code == 422
    assert server.get("/health/ready").status_code == 200
    series: Exported = {}
    for family in text_string_to_metric_families(server.get("/metrics").text):
        if family.type == "counter" and not family.samples:  # nothing has happened of what it counts
            series[f"{family.name}_total"] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                series.setdefault(sample.name, {}).setdefault(label, set()).add(value)
            series.setdefault(sample.name, {})
    return series


def parts(expression: Any) -> Iterator[Any]:
    """The expression and everything in it."""
    yield expression
    for name in ("lhs", "rhs", "expr", "args", "vector_selector"):
        inner = getattr(expression, name, None)
        for each in inner if isinstance(inner, list) else [inner]:
            if each is not None:
                yield from parts(each)


def selectors(text: str) -> list[Any]:
    return [part for part in parts(promql_parser.parse(text)) if isinstance(part, promql_parser.VectorSelector)]


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_series_exist(exported: Exported, name: str) -> None:
    found = selectors(EXPRESSIONS[name])
    assert found
    for selector in found:
        if selector.name == "up" or selector.name in RECORDED:
            continue
        assert selector.name in exported, f"{selector.name} is not exported"
        for matcher in selector.matchers.matchers:
            if matcher.name in OF_PROMETHEUS or not exported[selector.name]:
                continue
            assert matcher.name in exported[selector.name], f"{selector.name} has no label {matcher.name}"
            if matcher.name == "route":
                values = exported[selector.name]["route"]
                matched = {value for value in values if re.fullmatch(matcher.value, value)}
                assert values >= matched == DEFENCE


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_groups_are_by_labels_that_exist(exported: Exported, name: str) -> None:
    for part in parts(promql_parser.parse(EXPRESSIONS[name])):
        if not isinstance(part, promql_parser.AggregateExpr) or part.modifier is None:
            continue
        within = [selector.name for selector in selectors(part.expr.prettify())]
        known = [exported[name].keys() for name in within if exported.get(name)]
        if known and within[0] != "up":
            assert set(part.modifier.labels) <= OF_PROMETHEUS.union(*known), part.prettify()


def test_the_parser_notices_what_is_wrong() -> None:
    with pytest.raises(ValueError):
        promql_parser.parse("sum by (job) (rate(ebm_steps_total))")


def test_the_reason_that_alerts_name_is_the_servers() -> None:
    reasons = {
        matcher.value
        for expression in EXPRESSIONS.values()
        for selector in selectors(expression)
        for matcher in selector.matchers.matchers
        if matcher.name == "reason"
    }
    assert reasons == {OverloadedError.slug}


def test_what_must_be_watched_is() -> None:
    """Through recorded series, down to the server's own."""

    def reached(expression: str) -> set[str]:
        names = {selector.name for selector in selectors(expression)}
        return names.union(*(reached(RECORDED[name]) for name in names & RECORDED.keys()))

    alerts = set().union(*(reached(rule["expr"]) for rule in RULES if "alert" in rule))
    panels = set().union(*(reached(target["expr"]) for panel in PANELS for target in panel["targets"]))
    assert alerts & panels >= {
        "ebm_queue_cost",
        "ebm_slots_active",
        "ebm_batch_occupancy_sum",
        "ebm_http_request_duration_seconds_bucket",
        "ebm_perturbation_linf_sum",
        "ebm_disagreement_sum",
        "ebm_prediction_changed_total",
    }


def test_the_dashboard_asks_the_provisioned_source() -> None:
    (source,) = yaml.safe_load((MONITORING / "grafana" / "datasource.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
