"""A pull request from its webhook to the agent's checkout, over real HTTP with the real git (R06)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from keepflow.wire import messages
from tests.gateway.conftest import Served
from tests.gateway.played import Link, Played
from tests.processes import hook_headers
from tests.real.waiting import wait_until
from tests.tools import repositories
from tests.tools.repositories import git

FLOW = "version: 1\nflows:\n  check:\n    on: {pull_request: true}\n    steps: [{run: make}]\n"


def _propose(served: Served, number: int, fork: bool) -> str:
    """Open a pull request whose target has moved on, and tell of it."""
    repository = served.repository
    git(repository, "update-ref", f"refs/heads/proposal-{number}", git(repository, "rev-parse", "refs/heads/main"))
    head = repositories.commit(repository, {f"proposed-{number}": "by ann"}, ref=f"proposal-{number}")
    git(repository, "update-ref", f"refs/pull/{number}/head", head)
    repositories.commit(repository, {f"meanwhile-{number}": "on main"}, ref="main")
    request = {
        "title": "Mend it",
        "user": {"login": "ann"},
        "head": {"sha": head, "repo": {"id": 2 if fork else 1}},
        "base": {"ref": "main", "repo": {"id": 1}},
    }
    told = {"action": "opened", "number": number, "pull_request": request, "sender": {"login": "ann"}}
    body = json.dumps(told).encode()
    reply = served.master.ask("POST", "/hooks/app", body, hook_headers(body, f"pull-{number}", "pull_request"))
    assert reply.status == 202, reply.body
    return head


def _order(link: Link) -> messages.RunJob:
    order = link.take_order().body
    assert isinstance(order, messages.RunJob)
    return order


def _fetched(served: Served, order: messages.RunJob, directory: Path) -> set[str]:
    """Fetch what the order names, as an agent does, and list its files."""
    env: dict[str, Any] = {**repositories.ENVIRONMENT, "GIT_ALLOW_PROTOCOL": "http", "GIT_TERMINAL_PROMPT": "0"}
    header = f"http.extraHeader=Authorization: Bearer {order.token}"
    url = served.master.url + order.code_path
    for argv in (
        ["init", "--quiet", "."],
        ["-c", header, "fetch", "--quiet", "--no-tags", "--depth=1", url, order.sha],
    ):
        subprocess.run(["git", *argv], cwd=directory, env=env, check=True, capture_output=True, timeout=60)
    return set(git(directory, "ls-tree", "--name-only", order.sha).split("\n"))


def test_r06_an_agent_gets_the_merge_result_and_a_fork_only_when_a_person_let_it(own: Served, tmp_path: Path) -> None:
    repositories.commit(own.repository, {".keepflow.yml": FLOW}, ref="main")
    link = Played.joined(own.master, "builder").link(slots=2)
    head = _propose(own, 7, fork=False)
    order = _order(link)
    (tmp_path / "ours").mkdir()
    assert _fetched(own, order, tmp_path / "ours") == {".keepflow.yml", "proposed-7", "meanwhile-7"}
    assert (order.trust, order.env["KEEPFLOW_HEAD_SHA"], order.sha != head) == ("other", head, True)
    _propose(own, 8, fork=True)
    link.report(messages.JobFinished(fence=order.fence, at=2, state="succeeded"))
    run = "/projects/app/runs/2"
    wait_until(
        lambda: own.master.api("GET", run).json["reason_code"] == "needs-approval", 30, "the fork waits for a person"
    )
    assert own.master.api("POST", f"{run}/approve").status == 200
    theirs = _order(link)
    (tmp_path / "theirs").mkdir()
    assert {"proposed-8", "meanwhile-8"} <= _fetched(own, theirs, tmp_path / "theirs")
    assert (theirs.trust, theirs.logins, theirs.secrets) == ("fork", (), ())
    link.close()
