"""Watching from the command line: a run's log as it is written, a deployment until it ended. Ctrl-C only detaches."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import click

from keepflow import errors
from keepflow.cli.client import Client, at
from keepflow.cli.output import painted, say
from keepflow.cli.places import terminal
from keepflow.core import ansi

SUCCEEDED, FAILED, CANCELLED, TIMED_OUT = 0, 3, 5, 6  # exit codes of a watch
_OUTCOMES = ("done", "failed", "reverted", "unknown")


def exit_code(state: str) -> int:
    """Return the exit code for the final state of a run or a deployment."""
    return {"succeeded": SUCCEEDED, "done": SUCCEEDED, "cancelled": CANCELLED}.get(state, FAILED)


@contextmanager
def detaching(run: str) -> Any:
    """Let Ctrl-C end the watching only, and say how to cancel what is watched."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"\ndetached; it goes on. To cancel it: keepflow cancel {run}")
        raise


def follow_log(client: Client, project: str, number: int, timeout: float | None) -> str | None:
    """Print a run's log from line one until the run has ended; return its state, or None after `timeout` seconds."""
    ends = None if timeout is None else time.monotonic() + timeout
    path = f"/streams/runs{at(project, number)}/log"
    last, tries = "", 0
    while True:
        try:
            for event in client.events(path, last):
                tries, last = 0, event.id or last
                if event.name == "log":
                    write(event.data["text"])
                elif event.name == "end":
                    return str(event.data["state"])
                if ends is not None and time.monotonic() > ends:
                    return None
        except errors.Unavailable:
            tries += 1
            if tries > 8:
                raise
        if ends is not None and time.monotonic() > ends:
            return None
        # The server may be restarting with hundreds of watchers: full jitter, then go on from the last id.
        time.sleep(random.uniform(0.1, min(30.0, 0.5 * 2**tries)))  # noqa: S311 - jitter, not a secret


def write(text: str) -> None:
    """Write a piece of a log to stdout; to a terminal only text and colours."""
    sys.stdout.write(ansi.colours_only(text) if terminal(sys.stdout) else text)
    sys.stdout.flush()


def follow_deployment(
    client: Client, deployment: str, timeout: float | None, told: Callable[[str], None] = say
) -> dict[str, Any] | None:
    """Tell each phase of a deployment once, and return it when it ended; None after `timeout` seconds."""
    ends = None if timeout is None else time.monotonic() + timeout
    seen, waits = 0, ""
    while True:
        found = client.get(at("deployments", deployment))
        for phase in found["phases"][seen:]:
            detail = f"  {phase['detail']}" if phase["detail"] else ""
            told(f"  {painted(phase['phase'])}{click.style(detail, dim=True)}")
        seen = len(found["phases"])
        if found["phase"] in _OUTCOMES:
            return found
        if not seen and found["reason"] and found["reason"] != waits:
            waits = found["reason"]
            told(f"  waits: {waits}")
        if ends is not None and time.monotonic() > ends:
            return None
        time.sleep(0.5)
