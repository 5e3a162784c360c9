"""A bare repository: `keepflow hook send` in its `post-receive` speaks like GitHub, with the same signature."""

from __future__ import annotations

from collections.abc import Mapping

from keepflow.core.events import Parsed
from keepflow.core.statuses import CommitStatus, Request
from keepflow.core.webhooks import HookPlace, PullPlace
from keepflow.forges import _github_shape as shape

delivery_id = shape.delivery_id
event_name = shape.event_name
verify = shape.verify


def parse(headers: Mapping[str, str], body: bytes) -> Parsed:
    """Return what a verified delivery is; raises nothing but UsageError."""
    return shape.parse(event_name(headers), headers, body, {"push": shape.push})


def set_status(repo: str, api: str, token: str, status: CommitStatus) -> Request | None:  # noqa: ARG001 - the port's signature
    """Say that nobody is there to be told."""
    return None


def hook_place(repo: str, api: str, token: str) -> HookPlace | None:  # noqa: ARG001 - the port's signature
    """Say that no API makes its hook: `keepflow hook show` prints it."""
    return None


def pull_place(repo: str, api: str, token: str) -> PullPlace | None:  # noqa: ARG001 - the port's signature
    """Say that there are no pull requests here."""
    return None
