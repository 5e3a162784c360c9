"""Descriptions of containers: how they are resolved, hashed and compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from keepflow.core.flows import Container, Health, Strategy, Volume


@dataclass(frozen=True, slots=True)
class Overrides:
    """The only things an environment may set: env, args, stop_timeout, strategy."""

    env: dict[str, str] = field(default_factory=dict)
    args: tuple[str, ...] | None = None
    stop_timeout: float | None = None
    strategy: Strategy | None = None


def overrides_to_json(overrides: Overrides) -> dict[str, Any]:
    """Return an environment's settings as plain data, only those that are set."""
    data: dict[str, Any] = {"env": dict(overrides.env)} if overrides.env else {}
    if overrides.args is not None:
        data["args"] = list(overrides.args)
    if overrides.stop_timeout is not None:
        data["stop_timeout"] = overrides.stop_timeout
    if overrides.strategy is not None:
        data["strategy"] = overrides.strategy.value
    return data


def overrides_from_json(data: dict[str, Any]) -> Overrides:
    """Read an environment's settings back from plain data."""
    return Overrides(
        env=dict(data.get("env", {})),
        args=tuple(data["args"]) if "args" in data else None,
        stop_timeout=data.get("stop_timeout"),
        strategy=Strategy(data["strategy"]) if "strategy" in data else None,
    )


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that differs between what serves and what would serve; a value of None means not set."""

    setting: str
    before: str | None
    after: str | None


def resolve(container: Container, overrides: Overrides) -> Container:
    """Lay an environment's settings over a release's default description."""
    return replace(
        container,
        env={**container.env, **overrides.env},
        args=container.args if overrides.args is None else overrides.args,
        stop_timeout=container.stop_timeout if overrides.stop_timeout is None else overrides.stop_timeout,
        strategy=container.strategy if overrides.strategy is None else overrides.strategy,
    )


def cannot_run_twice(container: Container) -> str | None:
    """Say why two containers of this description must not run at once, None when they may."""
    if container.strategy != Strategy.STOP_FIRST:
        return None
    alone = [volume.name for volume in container.volumes if not volume.shared]
    if not alone and container.volumes:
        return None
    if alone:
        return f"it is stop-first, and only one container at a time may write to the volume {', '.join(alone)}"
    return "it is stop-first: two of it must not run at once"


def to_json(container: Container) -> dict[str, Any]:
    """Return a description as plain data; what most descriptions do not say is left out, so that older ones fit."""
    data = asdict(container)
    if not container.secrets_in_env:
        del data["secrets_in_env"]
    return data


def from_json(data: dict[str, Any]) -> Container:
    """Read a description back from plain data; raises KeyError, TypeError or ValueError when it is none."""
    return Container(
        port=int(data["port"]),
        health=Health(**data["health"]),
        env=dict(data["env"]),
        secrets=tuple(data["secrets"]),
        secrets_in_env=tuple(data.get("secrets_in_env", ())),
        volumes=tuple(Volume(**volume) for volume in data["volumes"]),
        args=tuple(data["args"]),
        strategy=Strategy(data["strategy"]),
        stop_timeout=float(data["stop_timeout"]),
        release_command=tuple(data.get("release_command", ())),
        release_timeout=float(data.get("release_timeout", 300.0)),
    )


def canonical(data: Any) -> bytes:
    """Serialise plain data so that equal data gives equal bytes: sorted keys, no spaces, UTF-8."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def description_hash(container: Container) -> str:
    """Return `sha256:<hex>` of the canonical description."""
    return "sha256:" + hashlib.sha256(canonical(to_json(container))).hexdigest()


def changes(before: Container | None, after: Container) -> list[Change]:
    """List the settings that would change, in a fixed order; against nothing, every setting is new."""
    old = _flat(before) if before else {}
    new = _flat(after)
    return [
        Change(key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _flat(container: Container) -> dict[str, str]:
    data = to_json(container)
    flat = {f"env.{name}": value for name, value in data.pop("env").items()}
    flat |= {f"health.{name}": str(value) for name, value in data.pop("health").items()}
    flat |= {
        f"volumes.{item['name']}": f"{item['at']}{' (shared)' if item['shared'] else ''}"
        for item in data.pop("volumes")
    }
    shown = frozenset(data.pop("secrets_in_env", ()))
    flat |= {
        f"secrets.{name}": "a variable, which root sees in inspect" if name in shown else "by name"
        for name in data.pop("secrets")
    }
    flat |= {name: " ".join(data.pop(name)) for name in ("args", "release_command")}
    return flat | {key: str(value) for key, value in data.items()}
