"""Webhooks that keepflow keeps at forges, as people and programs see them; no token, no secret."""

from __future__ import annotations

from collections.abc import Iterable

from keepflow.engine.context import Master
from keepflow.store.forge_hooks import ForgeHook
from keepflow.wire import api


def shown(master: Master, found: Iterable[ForgeHook]) -> list[api.ForgeHook]:
    """Return what is known of each of them."""
    return [
        api.ForgeHook(
            id=hook.id,
            project=hook.project,
            forge=hook.forge,
            repo=hook.repo,
            url=f"{master.url()}/hooks/{hook.project}",
            wanted=hook.wanted,
            state=hook.state,
            said=hook.said,
            next_at=hook.next_at,
            changed_at=hook.changed_at,
        )
        for hook in found
    ]
