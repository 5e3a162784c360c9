"""Containers of jobs, made as the agent makes them, for tests."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from keepflow.core.boxes import HANDED, Box, Limits, Mount, Owner
from tests.real.engines import Engine


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
