"""The pages, one blueprint per subject."""

from __future__ import annotations

from keepflow.web.pages import account, agents, board, deliveries, environments, runs

BLUEPRINTS = (
    account.blueprint,
    board.blueprint,
    runs.blueprint,
    environments.blueprint,
    deliveries.blueprint,
    agents.blueprint,
)
