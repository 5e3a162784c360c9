"""`keepflow promote --rehearse`: start a release beside the one that serves, and say how it went."""

from __future__ import annotations

import time
import uuid

from keepflow.cli import output, watching
from keepflow.cli.client import Client
from keepflow.cli.output import say

_ENDED = ("done", "failed")


def rehearse(client: Client, place: str, source: str, timeout: float | None, form: str) -> int:
    """Rehearse on every host of an environment and wait for the end; returns the exit code."""
    ready = client.get(f"{place}/readiness", source=source)
    if ready["loses_hot"]:
        say("the container kept hot for a rollback gives up its slot; a rollback is cold after this")
    client.post(f"{place}/rehearsals", {"source": source, "key": uuid.uuid4().hex})
    ends = None if timeout is None else time.monotonic() + timeout
    told: set[str] = set()
    while True:
        found = client.get(f"{place}/readiness", source=source)["rehearsals"]
        for one in found:
            reason = f": {one['reason']}" if one["phase"] in _ENDED else ""
            word = f"{one['host']}  {one['phase']}{reason}"
            if word not in told:
                told.add(word)
                say(word)
        if all(one["phase"] in _ENDED for one in found):
            break
        if ends is not None and time.monotonic() > ends:
            return watching.TIMED_OUT
        time.sleep(0.5)
    for one in found:
        if one["log_tail"]:
            say(one["log_tail"])
    if form == "json":
        output.print_json({"rehearsals": found})
    return watching.SUCCEEDED if all(one["phase"] == "done" for one in found) else watching.FAILED
