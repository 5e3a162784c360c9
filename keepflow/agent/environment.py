"""The environment of scripts: the names that CI scripts expect, and nothing of the agent's own.

Everything that came from a push (branch, message, author) reaches a script here and nowhere else: as data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keepflow.core.job_secrets import is_owned
from keepflow.core.matching import OWN_EMAIL
from keepflow.core.names import image_tag
from keepflow.executors.shell import MARK
from keepflow.wire.messages import RunJob

#: Variables of the agent itself that scripts may see.
_INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_LONGEST = 96 * 1024  #: bytes of one value; the kernel refuses to start a program with one of 128 KiB
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NO_ENGINE = "unix:///nonexistent/this-flow-is-not-in-docker_for"


@dataclass(frozen=True, slots=True)
class Places:
    """Where one job finds its things on this host. `engine` is the engine's address, None when it may not use it."""

    workspace: Path
    home: Path
    output: Path
    env: Path
    docker_config: Path
    temporary: Path
    engine: str | None


def of_job(order: RunJob, agent: str, master: str, user: str, mark: str, places: Places) -> dict[str, str]:
    """Return the whole environment of a job's commands. The master's values win over defaults, the host's over both."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # What git takes when nobody said who commits: a commit of that name starts nothing when it is pushed.
    defaults = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TERM": "dumb", "EMAIL": OWN_EMAIL, **inherited}
    host = {
        "CI": "true",
        "HOME": str(places.home),
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/sh",
        "TMPDIR": str(places.temporary),
        "WORKSPACE": str(places.workspace),
        "NODE_NAME": agent,
        "JENKINS_HOME": str(places.home),
        "DOCKER_CONFIG": str(places.docker_config),
        "DOCKER_HOST": places.engine or _NO_ENGINE,
        "KEEPFLOW_WORKSPACE": str(places.workspace),
        "KEEPFLOW_OUTPUT": str(places.output),
        "KEEPFLOW_ENV": str(places.env),
        "KEEPFLOW_FENCE": str(order.fence),
        MARK: mark,
    }
    return clean({**defaults, **_facts(order, master), **order.env, **host})


def of_step(job: Mapping[str, str], name: str) -> dict[str, str]:
    """Return what one step gets: the job's environment, which is clean already, and the step's name."""
    return {**job, "KEEPFLOW_STEP": _fit(name)}


#: What only makes sense on the host itself, and what an image says better.
_OF_THE_HOST = frozenset({"DOCKER_HOST", "DOCKER_CONFIG", "SHELL", "USER", "LOGNAME"})


def of_box(env: Mapping[str, str], began: Mapping[str, str], temporary: str, at: str) -> dict[str, str]:
    """Return a command's variables as they are in a container whose checkout is `at`.

    The image's own PATH holds until a step says another one; `began` is what the job had at first.
    """
    kept = {name: value for name, value in env.items() if name not in _OF_THE_HOST}
    if kept.get("PATH") == began.get("PATH"):
        kept.pop("PATH", None)
    return {**kept, "HOME": temporary, "JENKINS_HOME": temporary, "WORKSPACE": at, "KEEPFLOW_WORKSPACE": at}


def of_remote(env: Mapping[str, str], began: Mapping[str, str], at: str) -> dict[str, str]:
    """Return a command's variables as they are on another host: places of this one mean nothing there."""
    kept = of_box(env, began, "", at)
    for name in ("HOME", "JENKINS_HOME", "TMPDIR"):
        kept.pop(name, None)
    return {**kept, "KEEPFLOW_OUTPUT": os.devnull, "KEEPFLOW_ENV": os.devnull}


def added(lines: Mapping[str, str]) -> dict[str, str]:
    """Return what a script may add for later steps: nothing that keepflow says, and nothing that loads code."""
    return {name: value for name, value in lines.items() if not is_owned(name)}


def clean(env: Mapping[str, str]) -> dict[str, str]:
    """Make every value one the kernel takes: no NUL, encodable, bounded; leave out what is no name of a variable."""
    return {name: _fit(value) for name, value in env.items() if _NAME.fullmatch(name)}


def _facts(order: RunJob, master: str) -> dict[str, str]:
    """Return what the order itself says, under keepflow's and Jenkins' names."""
    branch = order.ref.removeprefix("refs/heads/") if order.ref.startswith("refs/heads/") else ""
    tag = order.ref.removeprefix("refs/tags/") if order.ref.startswith("refs/tags/") else ""
    run_url = order.env.get("KEEPFLOW_RUN_URL", "")
    return {
        "KEEPFLOW_PROJECT": order.project,
        "KEEPFLOW_FLOW": order.flow,
        "KEEPFLOW_RUN": str(order.run),
        "KEEPFLOW_JOB": order.job,
        "KEEPFLOW_ATTEMPT": str(order.attempt),
        "KEEPFLOW_REF": order.ref,
        "KEEPFLOW_BRANCH": branch,
        "KEEPFLOW_TAG": tag,
        "KEEPFLOW_IMAGE_TAG": image_tag(order.ref),
        "KEEPFLOW_SHA": order.sha,
        **{
            f"KEEPFLOW_{name}": ""
            for name in (
                *("EVENT", "MESSAGE", "ACTOR", "REGISTRY", "IMAGE", "ENVIRONMENT", "RUN_URL"),
                *("FAILED_JOBS", "PULL_REQUEST", "TARGET_BRANCH", "HEAD_SHA"),
            )
        },
        "BUILD_NUMBER": str(order.run),
        "BUILD_ID": str(order.run),
        "BUILD_URL": run_url,
        "BUILD_TAG": f"keepflow-{order.project}-{order.flow}-{order.run}",
        "JOB_NAME": f"{order.project}/{order.flow}",
        "GIT_COMMIT": order.sha,
        "GIT_URL": f"{master}{order.code_path}",
        "GIT_BRANCH": f"origin/{branch}" if branch else "",
        "BRANCH_NAME": branch or tag,
        "JENKINS_URL": f"{master}/",
    }


def _fit(value: str) -> str:
    return value.replace("\0", "").encode(errors="replace")[:_LONGEST].decode(errors="ignore")
