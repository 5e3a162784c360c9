"""Channels: whom the master tells, as the server file set them up, their secrets sealed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection

from keepflow.core.notices import CHOICES
from keepflow.crypto.vault import Vault
from keepflow.engine.context import Master
from keepflow.errors import UsageError
from keepflow.ports import Channel
from keepflow.store import events, settings
from keepflow.wire.desired import DesiredChannel

log = structlog.get_logger(__name__)

KEY = "notify"  #: settings key; {name: DesiredChannel with sealed secrets, and `since`}
SEEN = "notices-seen"  #: settings key; the last event that was looked at for notices


@dataclass(frozen=True, slots=True)
class Listener:
    """A channel that is set up: what it is told of, and the last event before it was there."""

    name: str
    kind: str
    channel: Channel
    on: frozenset[str]
    projects: frozenset[str]
    since: int

    def hears(self, words: frozenset[str], project: str) -> bool:
        """Say whether it wants to be told of any of these in a project."""
        return bool(self.on & words) and (not self.projects or project in self.projects)


def stored(conn: Connection, vault: Vault) -> dict[str, DesiredChannel]:
    """Return the channels by name, their secrets unsealed."""
    found: dict[str, Any] = settings.get(conn, KEY, {})
    return {name: DesiredChannel(**_unsealed(vault, name, data)) for name, data in found.items()}


def put(conn: Connection, master: Master, wanted: Mapping[str, DesiredChannel]) -> None:
    """Make these the channels; a new one is told of nothing that was before it."""
    known: dict[str, Any] = settings.get(conn, KEY, {})
    now = events.last_id(conn)
    sealed = {name: _sealed(master.vault, name, channel) for name, channel in wanted.items()}
    since = {name: known.get(name, {}).get("since", now) for name in wanted}
    if settings.get(conn, SEEN) is None:
        settings.put(conn, SEEN, now)
    settings.put(conn, KEY, {name: {**data, "since": since[name]} for name, data in sealed.items()})


def listeners(conn: Connection, master: Master) -> list[Listener]:
    """Return every channel ready to be told."""
    since = {name: data["since"] for name, data in settings.get(conn, KEY, {}).items()}
    made = []
    for name, channel in stored(conn, master.vault).items():
        try:
            ready = opened(name, channel, master.notifiers)
        except UsageError as error:
            log.error("a channel is not what it was when it was applied", channel=name, reason=error.message)
            continue
        on, projects = frozenset(channel.on), frozenset(channel.projects)
        made.append(Listener(name, channel.kind, ready, on, projects, since[name]))
    return made


def opened(name: str, channel: DesiredChannel, notifiers: Mapping[str, ModuleType]) -> Channel:
    """Make a channel of what the file says; raises UsageError for what this master cannot use."""
    module = notifiers.get(channel.kind)
    if module is None:
        known = ", ".join(sorted(notifiers))
        raise UsageError(f"notify.{name}: no way {channel.kind[:40]!r}; there are: {known}", code="unknown-channel")
    if strange := set(channel.on) - CHOICES:
        raise UsageError(f"notify.{name}.on: {min(strange)[:40]!r} is nothing to be told of", code="unknown-word")
    files = {f"{secret}_file": secret for secret in channel.secrets}
    try:
        ready: Channel = module.Channel(module.Settings.model_validate({**channel.settings, **files}), channel.secrets)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"notify.{name}.{channel.kind}.{place}: {first['msg']}", code="bad-channel") from None
    except UsageError as error:
        raise UsageError(f"notify.{name}.{channel.kind}: {error.message}", code=error.code) from None
    return ready


def _place(name: str, secret: str) -> str:
    return f"notify/{name}/{secret}"


def _sealed(vault: Vault, name: str, channel: DesiredChannel) -> dict[str, Any]:
    hidden = {key: vault.seal(value.encode(), _place(name, key)).hex() for key, value in channel.secrets.items()}
    return {**channel.model_dump(mode="json"), "secrets": hidden}


def _unsealed(vault: Vault, name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    clear = {key: vault.unseal(bytes.fromhex(value), _place(name, key)) for key, value in data["secrets"].items()}
    rest = {key: value for key, value in data.items() if key != "since"}
    return {**rest, "secrets": {key: value.decode() for key, value in clear.items()}}
