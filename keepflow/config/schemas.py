"""JSON schemas of keepflow's files, for editors: versioned, and made from the models that check the files."""

from __future__ import annotations

import json
import typing
from typing import Any

from pydantic import BaseModel, TypeAdapter

from keepflow.config import channels
from keepflow.config import flow_models as models
from keepflow.config.agent_file import AgentFile
from keepflow.config.flow_steps import Kinds
from keepflow.config.reference import descriptions, models_of
from keepflow.config.server_file import ServerFile
from keepflow.config.step_secrets import StepSecrets
from keepflow.config.where import Where
from keepflow.ports import contained

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


FILES = ("flow", "server", "agent")


def schema_text(file: str, kinds: Kinds) -> str:
    """Return the schema of one of FILES as JSON text."""
    made = flow_schema(kinds) if file == "flow" else server_schema() if file == "server" else agent_schema()
    return json.dumps(made, indent=2) + "\n"


def flow_schema(kinds: Kinds) -> dict[str, Any]:
    """Return the schema of the flow file with the step kinds that are installed."""
    schema = models.File.model_json_schema(ref_template="#/$defs/{model}")
    entries = [_entry_schema(kind, module, schema["$defs"]) for kind, module in sorted(kinds.items())]
    full = models.Deploy.model_json_schema()
    _describe({"$defs": {}, **full}, models.Deploy)
    name = {"type": "string", "description": "The environment that gets what was built.", "pattern": "^[a-z0-9-]+$"}
    deploy = {"anyOf": [name, full]}
    own: dict[str, dict[str, Any]] = {
        "deploy": deploy,
        "approve": {"type": "string", "minLength": 1, "maxLength": 200},
        "notify": {"type": "string", "description": "A channel of the master's file, or a mail address."},
    }
    alone = [_one_key(key, shape, {}) for key, shape in own.items()]
    for holder, allowed in (("Flow", [*entries, *alone]), ("Job", entries)):
        schema["$defs"][holder]["properties"]["steps"]["items"] = {"anyOf": allowed}
    schema["$defs"]["Job"]["properties"] |= {key: dict(shape) for key, shape in own.items()}
    _describe(schema, models.File)
    return _headed(schema, "flow-file", "keepflow flow file (.keepflow.yml)")


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Say at every key what it is for, as editors show it."""
    for name, one in models_of(model, "").items():
        shape = schema["$defs"].get(name) if name else schema
        for key, text in descriptions(one).items() if shape else ():
            shape["properties"][one.model_fields[key].alias or key].setdefault("description", text)


def server_schema() -> dict[str, Any]:
    """Return the schema of the master's file."""
    schema = _described(ServerFile)
    kinds = sorted(channels.installed().items())
    entries = [_channel_schema(kind, module, schema["$defs"]) for kind, module in kinds]
    schema["properties"][channels.SECTION]["additionalProperties"] = {"anyOf": entries}
    return _headed(schema, "server-file", "keepflow server file (keepflow.yml)")


def agent_schema() -> dict[str, Any]:
    """Return the schema of an agent's own file."""
    return _headed(_described(AgentFile), "agent-file", "keepflow agent file (agent.yml)")


def _described(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    _describe(schema, model)
    return schema


def _headed(schema: dict[str, Any], name: str, title: str) -> dict[str, Any]:
    return {"$schema": _DRAFT, "$id": f"urn:keepflow:{name}:1", **schema, "title": title}


def _channel_schema(kind: str, module: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one channel under `notify`: the settings of its kind, and what every kind has."""
    full = module.Settings.model_json_schema()
    definitions.update(full.pop("$defs", {}))
    return _one_key(kind, full, channels.Rules.model_json_schema()["properties"])


def _entry_schema(kind: str, module: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one entry under `steps`: the kind's settings, or what its shorthand takes."""
    full = module.Spec.model_json_schema(ref_template="#/$defs/{model}")
    _describe({"$defs": {}, **full}, module.Spec)
    definitions.update(full.pop("$defs", {}))
    short = TypeAdapter(typing.get_type_hints(module.shorthand)["value"]).json_schema()
    beside = {"name": models.StepName, "timeout": models.StepTimeout, "idempotent": models.StepIdempotent}
    secrets = StepSecrets.model_json_schema(ref_template="#/$defs/{model}")
    definitions.update(secrets["$defs"])
    others = {**{key: TypeAdapter(type_).json_schema() for key, type_ in beside.items()}, **secrets["properties"]}
    where = Where.model_json_schema(ref_template="#/$defs/{model}")["properties"]  # its definitions are the flow's
    if not contained(module):
        del where["image"], where["ssh"]
    return _one_key(kind, {"anyOf": [*short.get("anyOf", [short]), full]}, {**others, **where})


def _one_key(kind: str, schema: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {kind: schema, **others},
        "required": [kind],
        "additionalProperties": False,
    }
