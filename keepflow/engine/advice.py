"""What the master knows to be weak about how a team has set it up: said until it is mended, never enforced."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.store import agents, environments, notices
from keepflow.tools.machine import machine_id


def of_project(conn: Connection, project_id: int) -> list[str]:
    """Return what people of a project should know, each with how to mend it."""
    beside = _builds_beside_the_keys(conn, project_id)
    return [*([beside] if beside else []), *_nobody_told(conn)]


def _nobody_told(conn: Connection) -> list[str]:
    """Say of each channel that the newest thing it should have been told did not get through."""
    return [
        f"channel {one.channel} cannot be told anything: {one.error} (keepflow notices)"
        for one in notices.troubled(conn)
    ]


def _builds_beside_the_keys(conn: Connection, project_id: int) -> str | None:
    """Say so when the code of branches runs on the machine whose master signs orders to an environment.

    A job that may use Docker is root on its machine, and a promote is worth what its master's keys are worth.
    """
    promoted = [place.name for place in environments.of_project(conn, project_id) if place.promote_from]
    here = machine_id()
    building = sorted(
        agent.name
        for agent in agents.every(conn)
        if agent.revoked_at is None
        and "run" in agent.capabilities
        and here
        and (agent.hello or {}).get("machine_id") == here
    )
    if not promoted or not building:
        return None
    return (
        f"agent {', '.join(building)} builds on the master's own machine, beside the keys that sign orders for "
        f"{', '.join(promoted)}: join another machine for builds (keepflow agent token build-1), "
        f"then take “run” out of the capabilities in the agent file here"
    )
