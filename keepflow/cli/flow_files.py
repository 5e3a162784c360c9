"""Flow files on this machine: where they lie, and reading them with the step kinds that are installed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from keepflow.core.flows import FlowFile
from keepflow.errors import UsageError

FLOW_FILES = (".keepflow.yml", ".keepflow.yaml")


def flow_file_at(directory: Path) -> Path:
    """Return the flow file of a directory; raises UsageError when there is none."""
    for name in FLOW_FILES:
        if (directory / name).exists():
            return directory / name
    raise UsageError(f"there is no {FLOW_FILES[0]} here; `keepflow init` writes one", code="no-flow-file")


def read_flow_file(path: Path, shown: Path | None = None) -> FlowFile:
    """Read a flow file; problems name it as `shown`. Raises UsageError when it cannot be read, ConfigError."""
    from keepflow.config.flow_file import load_flow

    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", code="unreadable") from None
    return load_flow(data, step_kinds(), str(shown or path.name))


def step_kinds() -> dict[str, ModuleType]:
    """Return the step kinds that are installed, by their key in YAML."""
    from keepflow.ports import discover

    return discover("keepflow.steps")
