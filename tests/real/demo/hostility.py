"""Hostile branch names through the whole chain: hook, intake, mirror, agent, script, log, API."""

from __future__ import annotations

from collections.abc import Sequence

from tests.hostile import CANARY
from tests.real.demo.repository import instead
from tests.real.demo.world import World

#: Every branch runs, and what reaches its script is told between marks.
EVERY_BRANCH = """\
version: 1
flows:
  tell:
    on: {push: "**"}
    concurrency: queue
    steps:
      - run: printf '<%s> <%s>\\n' "$KEEPFLOW_BRANCH" "$KEEPFLOW_MESSAGE"
"""
MESSAGE = f"$(touch${{IFS}}{CANARY}) `touch {CANARY}` <script>alert(1)</script> --upload-pack=x %n {{{{7*7}}}}"


def push_hostile(world: World, names: Sequence[str]) -> dict[str, str]:
    """Push a commit with a hostile message under hostile names; return the names that did not come through, with why.

    A name has come through when its run succeeded and its script was given exactly the name and the message. The
    branches are deleted afterwards, which the hook tells as well.
    """
    sha = world.repository.edit("master", {".keepflow.yml": instead(EVERY_BRANCH)}, MESSAGE)
    world.repository.push_as(sha, names)
    world.repository.drop_last("master")
    world.quiet(120)
    world.repository.delete(names)
    wrong = {}
    for name in names:
        found = world.master.runs(branch=f"refs/heads/{name}")
        log = world.master.log_of(found[0]["number"]) if found else "there is no run"
        if not found or found[0]["state"] != "succeeded" or f"<{name}> <{MESSAGE}>\n" not in log:
            wrong[name] = log
    return wrong
