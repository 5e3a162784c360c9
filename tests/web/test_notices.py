"""Everybody is told: what deployments, gates, glass and hosts make of notices, and what admins see of them."""

from __future__ import annotations

from typing import Any

from keepflow.core.notices import CHOICES
from keepflow.engine import apply, channels, notifying
from keepflow.store import notices
from keepflow.wire import messages
from keepflow.wire.desired import DesiredChannel
from tests.notified import http_server
from tests.web.conftest import browser, web_app
from tests.web.story import Story, promote, pushed
from tests.web.test_environments import BOARD, OURS, _hidden


def _listen(story: Story, *words: str, url: str = "https://hooks.example.org/s3cret", **more: Any) -> None:
    channel = DesiredChannel(
        kind="webhook", settings={"url": url, **more}, secrets={"secret": "0123456789abcdef"}, on=words
    )
    story.write(lambda tx: channels.put(tx.conn, story.master, {"ops": channel}))


def _told(story: Story) -> list[tuple[str, str]]:
    with story.master.database.read() as conn:
        listeners = channels.listeners(conn, story.master)
    notifying.collect(story.master, listeners, None, story.now)
    with story.master.database.read() as conn:
        return [(one.notice.word, one.notice.title) for one in reversed(notices.page(conn, limit=100))]


def _everything(story: Story) -> None:
    _listen(story, *sorted(CHOICES - {"failed", "finished", "broken", "recovered"}))


def test_a_production_deployment_is_told_and_one_of_test_is_not(story: Story) -> None:
    _everything(story)
    promote(story, "3")
    assert _told(story) == [("deployed", "keepwork production serves a new release, asked for by bo")]


def test_a_revert_is_told_once_with_its_reason_and_its_quarantine(story: Story) -> None:
    _listen(story, "reverted", "quarantine", "broken")
    number = promote(story, "3", outcome="")
    story.deploy(number, "reverted", sentence="it answered 500 to visitors", code="visitors")
    told = dict(_told(story))
    assert told["reverted"] == "keepwork production was put back to what it served"
    assert set(told) <= {"reverted", "quarantine"}, "its run is not told a second time as broken"
    with story.master.database.read() as conn:
        lines = next(one.notice.lines for one in notices.page(conn) if one.notice.word == "reverted")
    assert "it answered 500 to visitors" in lines
    assert "asked for by bo" in lines


def test_an_outcome_nobody_knows_is_told(story: Story) -> None:
    _everything(story)
    number = promote(story, "3", outcome="")
    story.deploy(number, "unknown", sentence="the engine did not answer", code="engine")
    assert ("unknown", "keepwork production has a deployment whose end nobody knows") in _told(story)


def test_drift_is_told_when_it_begins_and_not_with_every_heartbeat(story: Story) -> None:
    _everything(story)
    state = messages.ServiceState(
        service="keepwork",
        instance="main",
        environment="keepwork/production",
        slot="blue",
        identity=pushed("e").digest,
        deployment=None,
        since=1,
        healthy=True,
    )
    for since in (1, 2, 3):
        beat = messages.Heartbeat(at=since, services=(state.model_copy(update={"since": since}),))
        story.write(lambda tx, beat=beat: notifying_heartbeat(tx, story, beat))
    assert _told(story) == [("drift", "keepwork production serves something else than was deployed")]


def notifying_heartbeat(tx: Any, story: Story, beat: messages.Heartbeat) -> None:
    """Let production's host say what serves there."""
    from keepflow.engine import enrol

    enrol.heartbeat(tx, story.master, story.agent_ids["prod-1"], beat, story.now)


def test_admins_see_channels_notices_and_what_did_not_get_through_and_nobody_else_does(story: Story) -> None:
    _listen(story, "deployed")
    promote(story, "3")
    _told(story)
    with story.master.database.read() as conn:
        [row] = notices.page(conn)
        [listener] = channels.listeners(conn, story.master)
    notifying.send(story.master, None, row, lambda: story.now)
    web = web_app(story)
    root = browser(web, story, "root")
    found = root.get("/api/v1/notices?state=failed").json["items"]
    assert [(one["channel"], one["state"], one["word"]) for one in found] == [("ops", "failed", "deployed")]
    shown = root.get("/api/v1/channels").json["items"]
    assert [(one["name"], one["kind"], one["trouble"]) for one in shown] == [("ops", "webhook", found[0]["error"])]
    page = root.get("/notices").text
    assert "given up" in page
    assert found[0]["title"] in page
    for text in (page, root.get("/api/v1/channels").text, root.get("/api/v1/notices").text):
        assert "0123456789abcdef" not in text
        assert "s3cret" not in text
    bo = browser(web, story, "bo")
    assert {bo.get(path).status_code for path in ("/notices", "/api/v1/notices", "/api/v1/channels")} == {403}
    assert "/notices" not in bo.get("/agents").text
    assert "channel ops cannot be told anything" in bo.get(BOARD).text
    assert listener.channel.recipients == ("hooks.example.org",)


def test_a_channel_is_tried_out_by_admins_and_says_who_was_not_told(story: Story) -> None:
    with http_server() as ear:
        _listen(story, "deployed", url=ear.url, private=True)
        root = browser(web_app(story), story, "root")
        headers = {**OURS, "X-CSRF-Token": _hidden(root.get(BOARD).text, "csrf_token")}
        path = "/api/v1/channels/ops/test"
        assert root.post(path, headers=headers).json == {"items": [{"recipient": "127.0.0.1", "problem": ""}]}
        ear.answers = [(500, {})]
        assert root.post(path, headers=headers).json["items"][0]["problem"] == "127.0.0.1 answered 500"
        assert root.post("/api/v1/channels/none/test", headers=headers).status_code == 404
        assert len(ear.heard) == 2


def test_a_server_file_brings_channels_in_and_out_and_its_plan_shows_no_secret(story: Story) -> None:
    with story.master.database.read() as conn:
        now = apply.stored(conn, story.master)
    channel = DesiredChannel(
        kind="webhook",
        settings={"url": "https://hooks.example.org/x"},
        secrets={"secret": "0123456789abcdef"},
        on=("drift",),
    )
    wanted = now.model_copy(update={"notify": {"ops": channel}})
    lines = story.write(lambda tx: apply.apply(tx, story.master, wanted, "root", story.now))
    assert [(line.action, line.what) for line in lines] == [("add", "channel ops")]
    with story.master.database.read() as conn:
        assert apply.plan(conn, story.master, wanted) == []
    other = channel.model_copy(update={"secrets": {"secret": "fedcba9876543210"}})
    lines = story.write(
        lambda tx: apply.apply(
            tx, story.master, wanted.model_copy(update={"notify": {"ops": other}}), "root", story.now
        )
    )
    assert [(line.action, line.detail) for line in lines] == [("change", "secrets is new")]
    lines = story.write(lambda tx: apply.apply(tx, story.master, now, "root", story.now))
    assert [(line.action, line.what) for line in lines] == [("remove", "channel ops")]


def test_a_setting_that_was_not_there_is_nothing_in_a_plan(story: Story) -> None:
    with story.master.database.read() as conn:
        now = apply.stored(conn, story.master)
        assert now.url is None
        [line] = apply.plan(conn, story.master, now.model_copy(update={"url": "https://ci.example.org"}))
    assert line.detail == "url: nothing → 'https://ci.example.org'"
