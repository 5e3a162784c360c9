"""Several hosts on the command line: a promote tells the phases of each and ends by the one that decides."""

from __future__ import annotations

from typing import Any

import click
import pytest

from keepflow.cli import watching


class Played:
    """An API that answers with what a test says, one answer after the other; the last one stays."""

    def __init__(self, *runs: list[dict[str, Any]]) -> None:
        self._runs = list(runs)

    def get(self, path: str, **_: Any) -> Any:
        """Answer a request for the deployment asked about, or for its run."""
        if "deployments" in path:
            return {"project": "keepwork", "run": 7, "environment": "production"}
        found = self._runs.pop(0) if len(self._runs) > 1 else self._runs[0]
        return {"jobs": [{"deployment": None}, *({"deployment": one} for one in found)]}


def deployment(host: str, *phases: str, code: str = "", silence: str | None = None, reason: str = "") -> dict[str, Any]:
    """Return a deployment as the API tells it."""
    return {
        "id": f"id-{host}",
        "host": host,
        "environment": "production",
        "phase": phases[-1] if phases else "queued",
        "phases": [{"phase": phase, "at": "", "detail": ""} for phase in phases if phase != "queued"],
        "reason": reason,
        "reason_code": code,
        "silence": silence,
    }


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching.time, "sleep", lambda _: None)


def follow(*runs: list[dict[str, Any]], timeout: float | None = None) -> tuple[Any, list[str]]:
    """Follow `id-a` through these states of its run; return what decides and what was told."""
    told: list[str] = []
    client: Any = Played(*runs)
    found = watching.follow_deployment(client, "id-a", timeout, told.append)
    return found, [click.unstyle(line).strip() for line in told]


def test_the_phases_of_each_host_are_told_once() -> None:
    found, told = follow(
        [deployment("a", "offered"), deployment("b", reason="waits for deploy-production-a")],
        [deployment("a", "offered", "done"), deployment("b", "offered")],
        [deployment("a", "offered", "done"), deployment("b", "offered", "done")],
    )
    assert found["host"] == "a"
    assert told == ["a  offered", "b  waits: waits for deploy-production-a", "a  done", "b  offered", "b  done"]


def test_the_host_that_failed_decides_and_not_the_one_that_was_not_begun() -> None:
    found, _ = follow(
        [
            deployment("a", "done"),
            deployment("b", "failed", code="stopped-after"),
            deployment("c", "reverted", code="not-healthy"),
        ]
    )
    assert found["host"] == "c"


def test_a_single_host_is_told_without_its_name() -> None:
    assert follow([deployment("a", "offered", "done")])[1] == ["offered", "done"]


def test_silence_is_told_once_until_it_ends() -> None:
    quiet = deployment("a", "pulling", silence="agent a is silent for 70 s")
    _, told = follow([quiet], [quiet], [deployment("a", "pulling")], [quiet], [deployment("a", "pulling", "done")])
    assert told == ["pulling", "agent a is silent for 70 s", "agent a is silent for 70 s", "done"]


def test_time_that_is_up_ends_the_watching_only() -> None:
    assert follow([deployment("a", "pulling")], timeout=-1.0)[0] is None
