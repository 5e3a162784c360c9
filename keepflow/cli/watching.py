"""Watching from the command line: a run's log as it is written, a deployment until it ended. Ctrl-C only detaches."""

from __future__ import annotations

import codecs
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
    last, tries, waits = "", 0, ""
    while True:
        try:
            for event in client.events(path, last):
                tries, last = 0, event.id or last
                if event.name == "log":
                    write(event.data["text"])
                elif event.name == "state":
                    waits = _waiting(event.data, f"{project}#{number}", waits)
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


def _waiting(state: dict[str, Any], run: str, told: str) -> str:
    """Say what a run waits for that may take long, once; return what was said last."""
    waits = str(state["sentence"]) if state["state"] == "waiting" else ""
    if waits and waits != told:
        say(f"{run} {waits} (keepflow why {run} says more)")
    return waits or told


def write(text: str) -> None:
    """Write a piece of a log to stdout; to a terminal only text and colours."""
    sys.stdout.write(ansi.colours_only(text) if terminal(sys.stdout) else text)
    sys.stdout.flush()


def writing() -> Callable[[bytes], None]:
    """Return what writes the pieces of a log to stdout at once, like `write`; a character may come in two of them."""
    if terminal(sys.stdout):
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        return lambda data: write(decoder.decode(data))

    def write_through(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    return write_through


def follow_deployment(
    client: Client, deployment: str, timeout: float | None, told: Callable[[str], None] = say
) -> dict[str, Any] | None:
    """Tell each phase of a deployment, and of those of its run to other hosts, once; return the one that decides.

    That is the first that did not end well, else the one asked about; None after `timeout` seconds.
    """
    ends = None if timeout is None else time.monotonic() + timeout
    asked = client.get(at("deployments", deployment))
    run = at("projects", asked["project"], "runs", asked["run"])
    listeners: dict[str, _Listener] = {}
    while True:
        found: list[dict[str, Any]] = [job["deployment"] for job in client.get(run)["jobs"] if job["deployment"]]
        group = [one for one in found if one["environment"] == asked["environment"]]
        for one in group:
            prefix = f"{one['host']}  " if len(group) > 1 else ""
            listeners.setdefault(one["id"], _Listener(prefix, told)).hear(one)
        if all(one["phase"] in _OUTCOMES for one in group):
            bad = [one for one in group if one["phase"] != "done" and one["reason_code"] != "stopped-after"]
            return next(iter(bad), None) or next(one for one in group if one["id"] == deployment)
        if ends is not None and time.monotonic() > ends:
            return None
        time.sleep(0.5)


class _Listener:
    """Tells what is new of one deployment each time it is heard of."""

    def __init__(self, prefix: str, told: Callable[[str], None]) -> None:
        self._prefix, self._told = prefix, told
        self._seen, self._waits, self._silent = 0, "", False

    def hear(self, found: dict[str, Any]) -> None:
        """Tell the phases that came since the last time, or why there is none."""
        for phase in found["phases"][self._seen :]:
            detail = f"  {phase['detail']}" if phase["detail"] else ""
            self._told(f"  {self._prefix}{painted(phase['phase'])}{click.style(detail, dim=True)}")
        self._seen = len(found["phases"])
        if not self._seen and found["reason"] and found["reason"] != self._waits:
            self._waits = found["reason"]
            self._told(f"  {self._prefix}waits: {self._waits}")
        if found["silence"] and not self._silent:
            self._told(f"  {self._prefix}{found['silence']}")
        self._silent = bool(found["silence"])
