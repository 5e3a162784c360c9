"""The command a release runs once before it is started: when it runs, how it fails, and what is left of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keepflow.agent.policy import Accepted, Refusal, check
from keepflow.config.agent_file import load_agent
from keepflow.core import deploys, names
from keepflow.core.flows import Container
from keepflow.core.states import Phase
from keepflow.errors import Unavailable
from keepflow.ports import SlotSpec
from tests.agent.confided import confided
from tests.agent.deployed import V1, V2, V3, Host, die, host, killed_at, order
from tests.agent.fakes import FakeTarget
from tests.agent.orders import FILE, Court

__all__ = ["host", "killed_at"]  # fixtures

COMMAND = ("python", "manage.py", "migrate")
GREEN, ONCE = "kf-shop-main-green", "kf-shop-main-release"


@pytest.fixture
def serving(host: Host) -> Host:
    """A host that serves V1 in blue, and whose calls are counted from here."""
    assert host.deployer().deploy(order(V1)).outcome == Phase.DONE
    host.target.calls.clear()
    return host


def untouched(host: Host) -> bool:
    """Say whether V1 serves as before and nothing else is left."""
    return host.running() == {"blue": V1} and list(host.target.containers) == ["kf-shop-main-blue"]


def test_it_runs_to_its_end_before_the_new_container_is_made(serving: Host) -> None:
    outcome = serving.deployer().deploy(order(V2, release_command=COMMAND))
    assert outcome.outcome == Phase.DONE
    assert serving.target.calls[:5] == [
        ("create", ONCE), ("start", ONCE), ("remove", ONCE), ("create", GREEN), ("start", GREEN),
    ]  # fmt: skip
    assert outcome.receipt["release_command"]["exit_code"] == 0
    assert outcome.receipt["release_command"]["seconds"] >= 0


def test_it_has_the_image_and_the_environment_of_the_release_but_no_address_of_a_slot(
    serving: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SlotSpec] = []
    create = FakeTarget.create

    def remember(target: FakeTarget, spec: SlotSpec) -> str:
        made.append(spec)
        return create(target, spec)

    monkeypatch.setattr(FakeTarget, "create", remember)
    plain = order(V2, release_command=COMMAND, env={"A": "b"}, secrets=("TOKEN",))
    wanted, sealed = confided(plain, {"TOKEN": "a secret value"})
    serving.deployer().held.keep(wanted, sealed)
    assert serving.deployer().deploy(wanted).outcome == Phase.DONE
    once, slot = made
    assert (once.image_id, once.command, once.env) == (V2, COMMAND, slot.env)
    assert once.secrets == slot.secrets
    assert (Path(once.secrets) / "TOKEN").read_text() == "a secret value"
    network = serving.deployer().networks.of("shop", "main")
    assert once.address not in (network.blue, network.green)
    assert names.LABEL_SLOT not in once.labels
    assert slot.command == ()


def test_one_that_fails_leaves_the_old_release_alone_and_its_words_are_kept(serving: Host) -> None:
    serving.target.ends = 3
    serving.target.words = "no such column, a secret value"
    wanted, sealed = confided(order(V2, release_command=COMMAND, secrets=("TOKEN",)), {"TOKEN": "a secret value"})
    serving.deployer().held.keep(wanted, sealed)
    outcome = serving.deployer().deploy(wanted)
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.FAILED, "release-command", V1)
    assert "exit code 3" in outcome.sentence
    assert outcome.log_tail.startswith("no such column")
    assert "a secret value" not in outcome.log_tail
    assert outcome.receipt["release_command"]["exit_code"] == 3
    assert untouched(serving)


def test_one_that_does_not_end_is_stopped_at_its_time(serving: Host) -> None:
    serving.target.ends = None
    outcome = serving.deployer().deploy(order(V2, release_command=COMMAND, release_timeout=0.01))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "release-command-timeout")
    assert "may have run in part" in outcome.sentence
    assert outcome.log_tail
    assert outcome.receipt["release_command"]["exit_code"] is None
    assert ("stop", ONCE) in serving.target.calls
    assert untouched(serving)


@pytest.mark.parametrize("hot", [0.0, 60.0])
def test_going_back_runs_none(serving: Host, hot: float) -> None:
    deployer = serving.deployer(hot=hot)
    deployer.deploy(order(V2, release_command=COMMAND))
    deployer.deploy(order(V3))
    serving.target.calls.clear()
    outcome = deployer.deploy(order(V2, action="rollback", release_command=COMMAND))
    assert (outcome.outcome, outcome.receipt["hot_start"]) == (Phase.DONE, hot > 0)
    assert outcome.receipt["release_command"] == {}
    assert ONCE not in {name for _, name in serving.target.calls}


def test_a_rehearsal_runs_none_and_says_so(serving: Host) -> None:
    outcome = serving.deployer().deploy(order(V2, action="rehearse", release_command=COMMAND))
    assert outcome.outcome == Phase.DONE
    assert "its release command was not run" in outcome.sentence
    assert ONCE not in {name for _, name in serving.target.calls}


@pytest.mark.parametrize("point", ["release-command.before", "release-command.after"])
def test_an_agent_that_died_meanwhile_says_that_it_may_have_run_in_part(
    serving: Host, killed_at: Any, point: str
) -> None:
    killed_at(point)
    die(serving, order(V2, release_command=COMMAND))
    killed_at(None)
    (outcome,) = serving.deployer().recover()
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.FAILED, "agent-restarted", V1)
    assert "may have run in part" in outcome.sentence
    assert untouched(serving)


def test_after_its_end_a_death_of_the_agent_does_not_blame_it(serving: Host, killed_at: Any) -> None:
    killed_at("create.before")
    die(serving, order(V2, release_command=COMMAND))
    killed_at(None)
    (outcome,) = serving.deployer().recover()
    assert outcome.code == "agent-restarted"
    assert "in part" not in outcome.sentence


class Gone(BaseException):
    """The process ended here."""


def starts_and_then(monkeypatch: pytest.MonkeyPatch, trouble: BaseException) -> None:
    """Have every container start, and the call raise nevertheless."""
    start = FakeTarget.start

    def start_then_raise(target: FakeTarget, container_id: str) -> None:
        start(target, container_id)
        raise trouble

    monkeypatch.setattr(FakeTarget, "start", start_then_raise)


def test_one_that_still_runs_when_the_agent_comes_back_is_stopped_and_removed(
    serving: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.target.ends = None
    with monkeypatch.context() as patch:
        starts_and_then(patch, Gone())
        with pytest.raises(Gone):
            serving.deployer().deploy(order(V2, release_command=COMMAND))
    assert serving.target.containers[ONCE].facts.running
    serving.target.calls.clear()
    (outcome,) = serving.deployer().recover()
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "agent-restarted")
    assert "may have run in part" in outcome.sentence
    assert serving.target.calls == [("stop", ONCE), ("remove", ONCE)]
    assert untouched(serving)


def test_an_engine_that_falls_silent_meanwhile_ends_it(serving: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    starts_and_then(monkeypatch, Unavailable("the engine does not answer", code="engine-unreachable"))
    outcome = serving.deployer().deploy(order(V2, release_command=COMMAND))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "engine-unreachable")
    assert untouched(serving)


def test_the_hosts_file_allows_it_or_the_refusal_names_the_line() -> None:
    court = Court()
    asked = court.sign(court.order(container=Container(release_command=COMMAND)))
    refused = check(asked, court.facts)
    assert isinstance(refused, Refusal)
    assert refused.code == "release-command-not-allowed"
    assert "'release_command: allowed' under services.shop in agent.yml" in refused.sentence
    allowing = load_agent(FILE.replace("hot: 0", "hot: 0\n    release_command: allowed"))
    assert isinstance(check(asked, replace(court, file=allowing).facts), Accepted)


def test_it_is_part_of_the_hashed_description_and_shown_as_a_change() -> None:
    before, after = Container(), Container(release_command=COMMAND, release_timeout=60.0)
    assert deploys.description_hash(before) != deploys.description_hash(after)
    assert deploys.from_json(deploys.to_json(after)) == after
    assert [(one.setting, one.after) for one in deploys.changes(before, after)] == [
        ("release_command", "python manage.py migrate"),
        ("release_timeout", "60.0"),
    ]
