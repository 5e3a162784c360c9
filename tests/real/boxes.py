"""Containers of jobs, made as the agent makes them, for tests."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from keepflow.core import names
from keepflow.core.boxes import HANDED, Box, Limits, Mount, Owner
from keepflow.wire.messages import StepOrder
from tests.real.engines import Engine
from tests.real.waiting import wait_until


def owner(fence: int = 1) -> Owner:
    """Return an owner nobody else is."""
    return Owner(f"test-{secrets.token_hex(4)}", f"{fence}-{secrets.token_hex(8)}", fence, "shop#1", "steps")


def box(engine: Engine, place: Path, *, user: str = "") -> Box:
    """Return a box of busybox that has a directory where it is here, without a network."""
    owned = owner()
    return Box(
        name=owned.named("box"),
        image=engine.base_image("busybox"),
        user=user or f"{os.geteuid()}:{os.getegid()}",
        workdir=str(place),
        network="none",
        labels=owned.labels,
        mounts=[Mount(str(place), str(place)), Mount(str(place.parent / "handed"), HANDED, read_only=True)],
        limits=Limits(memory=128 * 2**20, cpus=1, pids=64),
    )


def step(script: str, **where: Any) -> StepOrder:
    """Return a `run:` step that says where it runs."""
    return StepOrder(kind="run", name=script, spec={"script": script}, where=where)


def left(engine: Engine, fence: int) -> list[str]:
    """List what is on the engine of one attempt."""
    label = f"label={names.LABEL_FENCE}={fence}"
    found = [engine.docker(noun, "ls", "-q", "--filter", label) for noun in ("container", "network", "volume")]
    return " ".join(found).split()


def of(engine: Engine, fence: int, what: str) -> dict[str, Any]:
    """Return what `docker inspect` tells of the box or a service of an attempt."""
    label = f"label={names.LABEL_FENCE}={fence}"
    listing = ("container", "ls", "-aq", "--filter", label, "--filter", f"name=-{what}$")
    found = wait_until(lambda: engine.docker(*listing).split(), 20, f"a container of {fence}")
    told: dict[str, Any] = json.loads(engine.docker("inspect", found[0]))[0]
    return told
