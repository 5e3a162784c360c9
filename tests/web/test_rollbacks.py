"""Rollbacks: pressed at the master by page and API, reported by a host, and what the board says of the way back."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from flask import Flask

from keepflow.core import deploys
from keepflow.core.flows import Container
from keepflow.crypto import dsse
from keepflow.engine import enrol, sending
from keepflow.store import deployments, environments
from keepflow.wire import messages
from keepflow.wire.orders import PAYLOAD_TYPE, DeployOrder
from tests.web.conftest import browser, web_app
from tests.web.story import Story, promote, pushed
from tests.web.test_api import Caller, _token
from tests.web.test_environments import OURS, _hidden, _text

PATH = "/projects/keepwork/environments/production"
OLD, NEW = pushed("a").digest or "", pushed("b").digest or ""


@pytest.fixture
def twice(story: Story) -> Story:
    """Production served run 1 and serves run 3."""
    promote(story, "3")
    return story


@pytest.fixture
def manager(twice: Story) -> Caller:
    """A program of a release manager."""
    return Caller(web_app(twice), _token(twice, "bo", ["promote"]))


def beat(story: Story, **facts: Any) -> None:
    """Let the production host say what serves there."""
    state = messages.ServiceState(
        service="keepwork", instance="main", environment="keepwork/production", **{"identity": NEW, **facts}
    )
    body = messages.Heartbeat(at=story.now, services=(state,))
    story.write(lambda tx: enrol.heartbeat(tx, story.master, story.agent_ids["prod-1"], body, story.now))


def kept(how: str, identity: str = OLD) -> tuple[messages.KeptRelease, ...]:
    return (messages.KeptRelease(identity=identity, how=how, bytes=85_000_000),)


def order_for(story: Story, deployment: str) -> DeployOrder:
    """Return the order that went to the production host."""
    with story.master.database.read() as conn:
        sent = sending.waiting(conn, story.master, story.agent_ids["prod-1"])
    [body] = [one.body for one in sent if getattr(one.body, "deployment", "") == deployment]
    assert isinstance(body, messages.Deploy)
    return DeployOrder.model_validate_json(dsse.open_(body.envelope, PAYLOAD_TYPE, story.master.order_key.public))


def roll_back(caller: Caller, **body: Any) -> tuple[int, Any]:
    return caller.ask("POST", f"{PATH}/rollbacks", body)


def test_a_rollback_goes_to_what_served_before_as_it_was_described_then(twice: Story, manager: Caller) -> None:
    beat(twice)
    status, started = roll_back(manager, reason="checkout is broken")
    assert (status, started["kind"], started["identity"], started["note"]) == (
        202,
        "rollback",
        OLD,
        "checkout is broken",
    )
    order = order_for(twice, started["id"])
    assert (order.action, order.image.digest, order.expect_current) == ("rollback", OLD, NEW)
    with twice.master.database.read() as conn:
        place = environments.by_name(conn, twice.project().id, "production")
        assert place is not None
        first = next(one for one in deployments.of_environment(conn, place.id, 10) if one.identity == OLD)
    assert order.description_hash == first.description_hash
    twice.deploy(started["run"])
    assert manager.get(PATH.rpartition("/")[0])["items"][2]["serving"]["identity"] == OLD


def test_the_same_key_is_the_same_press(manager: Caller) -> None:
    key = "rollback-of-today"
    first, second = roll_back(manager, key=key), roll_back(manager, key=key)
    assert (first[0], first[1]) == (second[0], second[1])
    assert first[1]["id"] == key


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        ("3", 409, "serves in production already"),
        (NEW, 409, "serves in production already"),
        ("5", 404, "made no release"),
        ("99", 404, "there is no run"),
        ("x", 400, "neither a run number nor a digest"),
    ],
)
def test_where_nobody_can_go_back_to_is_refused_in_words(manager: Caller, source: str, status: int, words: str) -> None:
    found, problem = roll_back(manager, source=source)
    assert found == status
    assert words in problem["detail"]


def test_what_never_served_there_is_a_promote_and_no_rollback(manager: Caller) -> None:
    status, problem = roll_back(manager, source="4")
    assert (status, problem["code"]) == (409, "never-served")
    assert "promote it instead" in problem["detail"]


def test_a_rollback_is_not_rolled_back_by_itself_but_may_be_named(twice: Story, manager: Caller) -> None:
    twice.deploy(roll_back(manager)[1]["run"])
    assert roll_back(manager)[1]["code"] == "rolled-back-already"
    assert roll_back(manager, source="3")[0] == 202


def test_nothing_before_is_no_way_back(story: Story) -> None:
    manager = Caller(web_app(story), _token(story, "bo", ["promote"]))
    assert roll_back(manager)[1]["code"] == "nothing-before"
    found = manager.get("/projects/keepwork/environments")["items"][2]["rollback"]
    assert (found["how"], found["run"]) == ("impossible", None)


def test_a_rollback_waits_for_no_other_deployment_but_is_refused_beside_it(story: Story) -> None:
    promote(story, "3", outcome="")
    manager = Caller(web_app(story), _token(story, "bo", ["promote"]))
    codes = {guard["code"] for guard in manager.get(f"{PATH}/rollback")["guards"] if not guard["met"]}
    assert "underway" in codes


@pytest.mark.parametrize(
    ("facts", "how", "words"),
    [
        ({}, "re-pull", "has not said"),
        ({"kept": kept("hot")}, "hot", "still runs"),
        ({"kept": kept("cold")}, "cold", "on the host's disk (85 MB)"),
        ({"kept": kept("gone")}, "re-pull", "must come from the registry"),
        ({"kept": ()}, "re-pull", "must come from the registry"),
    ],
)
def test_the_board_says_what_going_back_would_take(
    twice: Story, manager: Caller, facts: dict[str, Any], how: str, words: str
) -> None:
    beat(twice, **facts)
    found = manager.get(PATH.rpartition("/")[0])["items"][2]["rollback"]
    assert (found["how"], found["run"]) == (how, 1)
    assert words in found["sentence"]
    page = _text(_board(twice))
    assert found["sentence"] in page


def _board(story: Story) -> str:
    return browser(web_app(story), story, "bo").get("/projects/keepwork/environments").text


def test_the_page_shows_what_goes_away_and_one_button_does_it(twice: Story) -> None:
    client = browser(web_app(twice), twice, "bo")
    page = client.get(f"{PATH}/rollback").text
    assert "3 commits go away" in _text(page)
    fields = {name: _hidden(page, name) for name in ("csrf_token", "source", "key")}
    answer = client.post(f"{PATH}/rollback", headers=OURS, data={**fields, "reason": "it is slow"})
    assert (answer.status_code, answer.location) == (303, "/projects/keepwork/runs/8")
    refused = client.post(f"{PATH}/rollback", headers=OURS, data={**fields, "key": secrets.token_hex(8)})
    assert refused.status_code == 409
    assert "is not finished" in _text(refused.text)


def test_whoever_may_not_press_sees_why(twice: Story) -> None:
    page = browser(web_app(twice), twice, "ann").get(f"{PATH}/rollback").text
    assert "needs the role release-manager" in _text(page)
    assert "<button disabled>" in page


# --- by hand on the host ----------------------------------------------------------------------------------------------


def told(story: Story, outcome: str = "done", **more: Any) -> messages.HostRollback:
    """Return what an agent says of a rollback that somebody did on its host."""
    facts = {
        "fence": 1,
        "deployment": "host-0123456789ab",
        "asked_at": story.now,
        "at": story.now + 2_000_000,
        "by": "host:cy",
        "service": "keepwork",
        "instance": "main",
        "origin": "registry",
        "repository": pushed("a").repository,
        "image_id": pushed("a").image_id,
        "digest": OLD,
        "description": deploys.to_json(Container()),
        "outcome": outcome,
        "sentence": "it serves",
        "serving": OLD,
        "receipt": {"phases": {"accepted": 0.1, "gating": 0.5}},
        **more,
    }
    return messages.HostRollback.model_validate(facts)


def test_a_rollback_on_the_host_becomes_what_is_expected(twice: Story, manager: Caller) -> None:
    twice.report("prod-1", told(twice))
    beat(twice, identity=OLD)
    production = manager.get("/projects/keepwork/environments")["items"][2]
    assert (production["serving"]["identity"], production["serving"]["by"]) == (OLD, "host:cy")
    assert production["drift"] is None
    newest = manager.get(f"{PATH}/deployments")["items"][0]
    assert (newest["kind"], newest["phase"], newest["note"]) == ("rollback", "done", "on the host itself")
    assert [phase["phase"] for phase in newest["phases"]] == ["accepted", "gating", "done"]
    run = manager.get(f"/projects/keepwork/runs/{newest['run']}")
    assert (run["state"], run["flow"], run["actor"]) == ("succeeded", "rollback", "host:cy")


def test_a_rollback_on_the_host_is_written_down_once(twice: Story, manager: Caller) -> None:
    twice.report("prod-1", told(twice))
    before = manager.get(f"{PATH}/deployments")
    twice.report("prod-1", told(twice, outcome="failed"))
    assert manager.get(f"{PATH}/deployments") == before


def test_an_unknown_end_on_the_host_locks_until_it_settles(twice: Story, manager: Caller) -> None:
    twice.report("prod-1", told(twice, "unknown", serving=None))
    assert roll_back(manager)[1]["code"] == "underway"
    twice.report("prod-1", told(twice))
    assert manager.get(f"{PATH}/deployments")["items"][0]["phase"] == "done"


@pytest.mark.parametrize(
    "lie",
    [
        {"service": "keepwork-test"},
        {"digest": "sha256:" + "9" * 64},
        {"description": {"port": "x"}},
        {"receipt": {"phases": {"gating": "long", "x": float("1e300")}}, "service": "nothing"},
    ],
)
def test_a_host_speaks_only_of_its_own_services_and_of_known_releases(
    twice: Story, manager: Caller, lie: dict[str, Any]
) -> None:
    before = manager.get("/projects/keepwork/environments")
    twice.report("prod-1", told(twice, **lie))
    assert manager.get("/projects/keepwork/environments") == before


def test_odd_durations_in_a_receipt_break_nothing(twice: Story, manager: Caller) -> None:
    twice.report("prod-1", told(twice, receipt={"phases": {"gating": "long", "x": 1e300, "y": -1}}))
    assert manager.get(f"{PATH}/deployments")["items"][0]["phase"] == "done"


def test_an_app_without_the_scope_may_not_roll_back(twice: Story, app: Flask) -> None:
    caller = Caller(app, _token(twice, "bo", ["run"]))
    assert roll_back(caller)[1]["code"] == "scope"


# --- drift ------------------------------------------------------------------------------------------------------------

MOVED = (messages.Difference(what="slot", expected="green", found="blue"),)


def mend(caller: Caller, way: str, **body: Any) -> tuple[int, Any]:
    return caller.ask("POST", f"{PATH}/drift", {"way": way, **body})


def test_drift_is_told_with_what_was_expected_and_what_was_found(twice: Story, manager: Caller) -> None:
    beat(twice, identity=OLD, ours=True, differences=MOVED)
    found = manager.get(f"{PATH}/drift")
    assert [(one["what"], one["expected"], one["found"]) for one in found["hosts"][0]["differences"]] == [
        ("release", NEW, OLD),
        ("slot", "green", "blue"),
    ]
    page = _text(_board(twice))
    assert f"{OLD[:19]} serves; {NEW[:19]} was deployed; slot: blue instead of green" in page
    assert "Restore what was deployed" in page
    assert "Adopt what serves" in page


def test_a_host_between_two_states_does_not_drift(twice: Story, manager: Caller) -> None:
    beat(twice, identity=OLD, busy=True)
    assert manager.get(f"{PATH}/drift")["drifts"] is False


def test_adopting_expects_what_serves_from_then_on(twice: Story, manager: Caller) -> None:
    beat(twice, identity=OLD, ours=True, differences=MOVED)
    status, started = mend(manager, "adopt", reason="the new one lost orders")
    assert (status, started["kind"], started["identity"]) == (202, "adopt", OLD)
    assert order_for(twice, started["id"]).action == "adopt"
    twice.deploy(started["run"])
    beat(twice, identity=OLD, ours=True)
    production = manager.get(PATH.rpartition("/")[0])["items"][2]
    assert (production["serving"]["identity"], production["drift"]) == (OLD, None)


def test_restoring_deploys_what_was_expected_whatever_serves(twice: Story, manager: Caller) -> None:
    beat(twice, identity=None, ours=False, image_id="sha256:" + "9" * 64)
    assert (
        "a container not made by keepflow, of image sha256:9"
        in manager.get(PATH.rpartition("/")[0])["items"][2]["drift"]
    )
    status, started = mend(manager, "restore", key="restore-today")
    assert (status, started["kind"], started["identity"], started["id"]) == (202, "restore", NEW, "restore-today")
    order = order_for(twice, started["id"])
    assert (order.action, order.expect_current) == ("deploy", None)
    assert mend(manager, "restore", key="restore-today")[1]["id"] == "restore-today"


@pytest.mark.parametrize(
    ("facts", "way", "code"),
    [
        ({"identity": NEW}, "adopt", "no-drift"),
        ({"identity": NEW}, "restore", "no-drift"),
        ({"identity": None, "ours": False}, "adopt", "not-ours"),
        ({"identity": "sha256:" + "9" * 64, "ours": True}, "adopt", "never-served"),
    ],
)
def test_drift_that_cannot_be_mended_so_is_refused_in_words(
    twice: Story, manager: Caller, facts: dict[str, Any], way: str, code: str
) -> None:
    beat(twice, **facts)
    status, problem = mend(manager, way)
    assert (status, problem["code"]) == (409, code)


def test_the_button_of_a_drifting_environment_restores(twice: Story) -> None:
    beat(twice, identity=OLD, ours=True)
    client = browser(web_app(twice), twice, "bo")
    page = client.get("/projects/keepwork/environments").text
    fields = {"csrf_token": _hidden(page, "csrf_token"), "way": "restore"}
    answer = client.post(f"{PATH}/drift", headers=OURS, data=fields)
    assert (answer.status_code, answer.location) == (303, "/projects/keepwork/runs/8")
    assert client.post(f"{PATH}/drift", headers=OURS, data={**fields, "way": "x"}).status_code == 400
