"""The client has what the host's OpenAPI document has: a route, parameter or field that is new there is missed here."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest

from hosts import Host
from memcell_client import MemCell, MemCellClient, _operations, answers, overview
from memcell_client._wire import DATETIME_FIELDS

JOB_KINDS = get_args(answers.JobKind)
METHODS = ("get", "post", "patch", "put", "delete")


@pytest.fixture(scope="module")
def document(host: Host) -> dict[str, Any]:
    with MemCellClient(host.url) as client:
        return client.openapi()


def test_every_operation_and_every_parameter_is_there(document: dict[str, Any]) -> None:
    described = {
        (method.upper(), path): {
            parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"
        }
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }
    known = {(route.method, route.path): set(route.parameters) for route in _operations.ROUTES}
    assert known == described


@pytest.mark.parametrize(
    ("schema", "kind", "renamed"),
    [
        ("Activity", answers.Activity, {}),
        ("Backend", answers.Backend, {}),
        ("BackendSample", overview.BackendSample, {}),
        ("BackendState", answers.BackendState, {}),
        ("Change", answers.ConfigChange, {}),
        ("Difference", answers.Difference, {}),
        ("Finding", answers.Finding, {}),
        ("History", overview.History, {}),
        ("Job", answers.Job, {}),
        ("JobProgress", answers.JobProgress, {}),
        ("JobReport", answers.JobReport, {"extra_copies": "extra"}),
        ("Mismatch", answers.Mismatch, {}),
        ("MismatchCount", overview.MismatchCount, {}),
        ("MongoDbState", overview.MongoDbState, {}),
        ("OperationTotals", overview.OperationTotals, {}),
        ("Overview", overview.Overview, {}),
        ("Readiness", answers.Readiness, {}),
        ("Repaired", answers.Repaired, {}),
        ("Sample", overview.Sample, {}),
    ],
)
def test_every_field_of_an_answer_is_there(
    document: dict[str, Any], schema: str, kind: Any, renamed: dict[str, str]
) -> None:
    described = document["components"]["schemas"][schema]
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name != "extra"}
    assert {renamed.get(name, name) for name in fields} == set(described["properties"])
    optional = {renamed.get(name, name) for name, field in fields.items() if field.default is not dataclasses.MISSING}
    assert optional >= set(described["properties"]) - set(described.get("required", []))


def test_every_known_field_of_a_memcell_is_an_attribute(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    properties: dict[str, Any] = {}
    for part in (schemas["MemCell"], schemas["MemCellFields"], *schemas["MemCell"].get("allOf", [])):
        properties |= part.get("properties", {})
    assert {"event_id", "timestamp", "summary", "extend"} <= properties.keys()
    for name, about in properties.items():
        assert isinstance(getattr(MemCell, name, None), property), name
        assert (about.get("format") == "date-time") == (name in DATETIME_FIELDS), name


def test_every_kind_of_job_is_known(document: dict[str, Any]) -> None:
    described = document["components"]["schemas"]["JobRequest"]["properties"]["kind"]["description"]
    for kind in JOB_KINDS:
        if kind != "rekey":
            assert f"`{kind}`" in described
    for word in set(described.split("`")[1::2]):
        assert word in JOB_KINDS
