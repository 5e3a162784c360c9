"""An instance per branch: an environment of its own beside the one it belongs to, begun by its first deploy."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core import names
from keepflow.core.deploys import overrides_to_json
from keepflow.core.states import Reason
from keepflow.core.text import one_line
from keepflow.store import environments, placements
from keepflow.store.environments import Environment


def of_branch(conn: Connection, base: Environment, ref: str, now: int) -> Environment | Reason:
    """Return the environment of a branch's instance, begun when there is none; a reason when there can be none."""
    if len(base.name) > names.BASE_LIMIT:
        sentence = (
            f"an environment with an instance for each branch has a name of at most {names.BASE_LIMIT} characters"
        )
        return Reason("name-too-long", sentence)
    instance = names.branch_instance(ref)
    name = f"{base.name}-{instance}"
    found = environments.by_name(conn, base.project_id, name)
    if found is not None and found.ref != ref:
        whose = f"branch {one_line(found.ref, 60)}" if found.ref else "an environment of that name"
        return Reason("instance-taken", f"{name} belongs to {whose} already; rename this branch")
    values = {
        "position": base.position,
        "service": base.service,
        "branches": list(base.branches),
        "overrides": overrides_to_json(base.overrides),
        "max_unavailable": base.max_unavailable,
        "on_failure": base.on_failure,
        "managed": False,
        "instance": instance,
        "base_id": base.id,
        "ref": ref,
    }
    environment_id = environments.put(conn, base.project_id, name, now, values)
    placements.put(conn, environment_id, base.agents, now)
    return environments.by_id(conn, environment_id)
