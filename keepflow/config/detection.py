"""Which of keepflow's files a file is, by what it holds and else by its name; and checking any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from keepflow.config.agent_file import load_agent
from keepflow.config.flow_file import load_flow
from keepflow.config.flow_steps import Kinds
from keepflow.config.server_file import load_server
from keepflow.config.yaml_loader import load
from keepflow.errors import ConfigError, Problem

FileKind = Literal["flow", "server", "agent"]

_KEYS: dict[FileKind, frozenset[str]] = {
    "flow": frozenset({"flows", "container", "image"}),
    "server": frozenset({"projects", "environments", "groups", "url"}),
    "agent": frozenset({"master", "capabilities", "services", "docker_for"}),
}


def detect(value: Any, file: str) -> FileKind:
    """Say which file a loaded value is: the kind most of its keys belong to, else by name, else a flow file."""
    keys = set(value) if isinstance(value, dict) else set()
    score, kind = max((len(keys & known), kind) for kind, known in _KEYS.items())
    if score:
        return kind
    name = Path(file).name
    if name.startswith("keepflow."):
        return "server"
    return "agent" if "agent" in name else "flow"


def problems_of(data: bytes, file: str, kinds: Kinds, kind: FileKind | None = None) -> list[Problem]:
    """Check one file and return every problem; an empty list means that it can be used."""
    try:
        wanted = kind or detect(load(data, file).value, file)
        if wanted == "flow":
            load_flow(data, kinds, file)
        elif wanted == "server":
            load_server(data, file)
        else:
            load_agent(data, file)
    except ConfigError as error:
        return error.problems
    return []
