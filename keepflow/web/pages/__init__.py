"""The pages, one blueprint per subject."""

from __future__ import annotations

from keepflow.web.pages import (
    account,
    agents,
    board,
    canary,
    control,
    deliveries,
    drift,
    environments,
    hooks,
    notices,
    quarantine,
    rehearsals,
    rollbacks,
    rules,
    runs,
    schemas,
    secrets,
    settling,
    starting,
)

BLUEPRINTS = (
    account.blueprint,
    board.blueprint,
    runs.blueprint,
    control.blueprint,
    environments.blueprint,
    canary.blueprint,
    quarantine.blueprint,
    rehearsals.blueprint,
    rollbacks.blueprint,
    drift.blueprint,
    settling.blueprint,
    secrets.blueprint,
    rules.blueprint,
    deliveries.blueprint,
    hooks.blueprint,
    agents.blueprint,
    schemas.blueprint,
    notices.blueprint,
    starting.blueprint,
)
