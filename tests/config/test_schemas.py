"""Schemas for editors: versioned, and they know what the checks know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keepflow.config.agent_file import AgentFile
from keepflow.config.flow_models import Container, File, Flow
from keepflow.config.schemas import agent_schema, flow_schema, server_schema
from keepflow.config.server_file import ServerFile
from tests.config.test_flow_file import KINDS


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        pytest.param(flow_schema(KINDS), "urn:keepflow:flow-file:1", id="flow"),
        pytest.param(server_schema(), "urn:keepflow:server-file:1", id="server"),
        pytest.param(agent_schema(), "urn:keepflow:agent-file:1", id="agent"),
    ],
)
def test_a_schema_is_versioned_plain_json_that_refuses_unknown_keys(schema: dict[str, Any], name: str) -> None:
    assert schema["$id"] == name
    assert json.loads(json.dumps(schema)) == schema
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values() if "properties" in part)


def test_every_reference_leads_somewhere() -> None:
    for schema in (flow_schema(KINDS), server_schema(), agent_schema()):
        for reference in _references(schema):
            assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_the_schemas_name_every_key() -> None:
    flow = flow_schema(KINDS)
    assert flow["properties"].keys() == File.model_fields.keys()
    assert flow["$defs"]["Flow"]["properties"].keys() == Flow.model_fields.keys()
    assert flow["$defs"]["Container"]["properties"].keys() == Container.model_fields.keys()
    assert server_schema()["properties"].keys() == ServerFile.model_fields.keys()
    assert agent_schema()["properties"].keys() == AgentFile.model_fields.keys()


def test_a_step_is_one_of_the_installed_kinds_or_a_deploy() -> None:
    entries = flow_schema(KINDS)["$defs"]["Flow"]["properties"]["steps"]["items"]["anyOf"]
    assert {entry["required"][0] for entry in entries} == {*KINDS, "deploy", "approve", "notify"}
    run = next(entry for entry in entries if entry["required"] == ["run"])
    assert [form["type"] for form in run["properties"]["run"]["anyOf"]] == ["string", "array", "object"]


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [found for value in part.values() for found in _references(value)]
    return [found for value in part for found in _references(value)] if isinstance(part, list) else []
