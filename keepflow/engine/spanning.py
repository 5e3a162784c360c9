"""When a run spans machines: only where a job cannot run on the agent that holds the files it goes on with.

A job hands its files on at its end when one that follows may run elsewhere; that is known from the agent it runs on,
before it begins, so the token of the job is still good for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from keepflow.core import queueing, sharing
from keepflow.core.planning import wiring_from_json
from keepflow.core.queueing import Seat
from keepflow.core.states import State
from keepflow.store import jobs, runs, workspaces
from keepflow.store.agents import Agent
from keepflow.store.jobs import Job
from keepflow.wire.messages import CONTAINERS, SSH


def kinds_of(job: Job) -> frozenset[str]:
    """Return what an agent must be able to do for a job, as agents say it."""
    kinds = {step["kind"] for step in job.spec["steps"]}
    places = [job.spec.get("where") or {}, *(step.get("where") or {} for step in job.spec["steps"])]
    if any({"image", "services"} & place.keys() for place in places):
        kinds.add(CONTAINERS)
    return frozenset(kinds | {f"{SSH}{place['ssh']}" for place in places if place.get("ssh")})


def can(agent: Agent, job: Job) -> bool:
    """Say whether an agent could carry a job out by what it last said of itself, connected or not."""
    seat = Seat(agent.id, frozenset(agent.labels), agent.step_kinds, agent.slots, 0)
    return agent.revoked_at is None and queueing.fits(seat, frozenset(job.spec["labels"]), kinds_of(job))


def hands_on(agent: Agent, home: int, key: str, bases: Mapping[str, Sequence[str]], of_run: Mapping[str, Job]) -> bool:
    """Say whether a job that runs on an agent hands its files on to others; `home` is the agent of its run.

    `bases` says of every job on whose files it goes on (`sharing.bases`).

    It does unless every job that goes on with them will surely be given to the same agent (`assigning.holder`).
    """
    followers = [of_run[follower] for follower, needs in bases.items() if key in needs]
    at_home = home == agent.id

    def stays(follower: Job) -> bool:
        if not can(agent, follower):
            return False
        if not follower.spec["labels"]:
            return at_home
        return follower.needs == (key,) or (at_home and key in follower.needs)

    return not all(map(stays, followers))


def reachable(conn: Connection, job: Job) -> bool:
    """Say whether all files that a job goes on with were handed on, so that it can run on any agent."""
    if not job.needs:
        return True
    bases = sharing.bases(wiring_from_json(runs.by_id(conn, job.run_id).plan))[job.key]
    states = {one.key: one.state for one in jobs.of_run(conn, job.run_id)}
    there = workspaces.of_run(conn, job.run_id)
    return all(key in there for key in bases if states[key] == State.SUCCEEDED)
