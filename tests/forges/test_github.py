"""What GitHub's webhooks come to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.events import Event, EventKind, Parsed
from keepflow.errors import BadSignature, UnsupportedMedia, UsageError
from keepflow.forges import github
from tests import hostile
from tests.forges.deliveries import BEFORE, HEAD, SAMPLES, SECRET, delivery, headers, payload


def parse(name: str, **changes: Any) -> Parsed:
    return github.parse(*delivery(name, **changes))


def event(name: str, **changes: Any) -> Event:
    found = parse(name, **changes).event
    assert found is not None
    return found


def test_a_push_names_exactly_the_pushed_commit_and_branch() -> None:
    assert event("push") == Event(
        kind=EventKind.PUSH,
        ref="refs/heads/dev",
        sha=HEAD,
        before=BEFORE,
        message="Mend the login page\n\nIt was broken on Fridays.",
        author="Ann Author",
        actor="bo",
        url=f"https://github.com/example/keepwork/commit/{HEAD}",
    )


def test_a_new_branch_comes_from_nowhere_and_a_forced_push_says_so() -> None:
    assert (event("push-new-branch").before, event("push-new-branch").branch) == (None, "feature/login")
    assert event("push-forced").forced


@pytest.mark.parametrize(("name", "tag"), [("push-tag", "v1.0"), ("push-annotated-tag", "v1.1")])
def test_a_tag_names_the_commit_and_never_the_tag_object(name: str, tag: str) -> None:
    found = event(name)
    assert (found.kind, found.tag, found.sha) == (EventKind.TAG, tag, HEAD)


def test_a_pull_request_of_the_same_repository_is_an_event() -> None:
    found = event("pull-request-opened")
    assert (found.kind, found.ref, found.sha, found.before) == (EventKind.PULL_REQUEST, "refs/pull/7/head", HEAD, None)
    assert (found.message, found.author, found.actor) == ("Mend the login page", "ann", "ann")
    assert (found.number, found.target, found.fork) == (7, "refs/heads/master", False)
    assert event("pull-request-synchronize").before == BEFORE


@pytest.mark.parametrize("name", ["pull-request-from-fork", "pull-request-from-deleted-fork"])
def test_r06_code_of_another_repository_is_said_to_be(name: str) -> None:
    assert event(name).fork


@pytest.mark.parametrize("action", ["edited", "labeled", "assigned", "review_requested", "locked", "x"])
def test_r06_only_new_code_of_a_pull_request_is_an_event(action: str) -> None:
    assert parse("pull-request-opened", action=action).word == "ignored"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("ping", "ping"),
        ("push-deleted", "deleted"),
        ("push-deleted-tag", "deleted"),
        ("push-without-head", "no-commit"),
        ("pull-request-closed", "closed"),
        ("issue-comment", "unknown-event"),
        ("star", "unknown-event"),
    ],
)
def test_what_no_flow_file_can_change_is_decided_in_a_word_and_a_sentence(name: str, word: str) -> None:
    found = parse(name)
    assert (found.event, found.word) == (None, word)
    assert found.sentence


def test_every_sample_is_tested() -> None:
    assert len(SAMPLES) == 17


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_form_means_the_same_as_json(name: str) -> None:
    assert github.parse(*delivery(name, form=True)) == parse(name)


def test_a_missing_event_name_is_an_unknown_event() -> None:
    sent, body = delivery("push")
    assert github.parse({"content-type": sent["content-type"]}, body).word == "unknown-event"


def test_who_acts_is_whom_the_forge_names_and_never_the_author_of_the_commit() -> None:
    found = event("push", sender={"login": "mallory"}, pusher={"name": "root"})
    assert (found.actor, found.author) == ("mallory", "Ann Author")
    assert event("push", sender=None).actor == ""


@pytest.mark.parametrize("branch", hostile.NAMES)
def test_a_hostile_branch_is_kept_as_it_is(branch: str) -> None:
    assert event("push", ref=f"refs/heads/{branch}").branch == branch


@pytest.mark.parametrize(
    "ref",
    [
        "dev",
        "",
        "refs/heads/",
        "refs/heads/a b",
        "refs/heads/a..b",
        "refs/heads/\x00",
        "refs/notes/x",
        "refs/heads/a\n",
        "HEAD",
        None,
        5,
        [],
    ],
)
def test_a_ref_git_could_not_have_is_refused(ref: object) -> None:
    with pytest.raises(UsageError):
        parse("push", ref=ref)


@pytest.mark.parametrize("sha", ["", "abc", HEAD.upper(), HEAD + "0", "--output=x", None, 7])
def test_a_commit_id_that_is_none_is_refused(sha: object) -> None:
    with pytest.raises(UsageError):
        parse("push", after=sha)


def test_text_from_outside_is_bounded_and_safe_to_store() -> None:
    head = {
        "id": HEAD,
        "message": "a\0b\ud800" + "x" * 99_999,
        "author": {"name": "n" * 999},
        "url": "javascript:alert(1)",
    }
    found = event("push", head_commit=head)
    assert found.message.startswith("ab?xxx")
    assert len(found.message) < 20_000
    assert len(found.author) == 256
    assert found.url == ""
    json.dumps(found.to_json()).encode()


NO_OBJECTS = (b"", b"{", b"[]", b"null", b'"x"', b"1", b"{} x", b"{'a': 1}", b'{"a": 1,}', b"\0")
NO_UTF8 = (b"\xff{}", b"\xef\xbb\xbf{}", "{}".encode("utf-16"))
NOT_PLAIN = (b'{"a": NaN}', b'{"a": Infinity}', b'{"ref": "x", "ref": "y"}', b'{"a": {"b": 1, "b": 2}}')
ENDLESS = (b"[" * 200_000, b'{"a":' * 200_000, b'{"a": ' + b"9" * 5000 + b"}")


@pytest.mark.parametrize("body", [*NO_OBJECTS, *NO_UTF8, *NOT_PLAIN, *ENDLESS], ids=lambda body: repr(body[:20]))
def test_a_body_that_is_not_one_plain_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(UsageError):
        github.parse(headers("push"), body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"payload",
        b"x=1",
        b"payload={}&payload={}",
        b"payload=%ff",
        b"&".join([b"a=1"] * 1000),
        b"payload=[]",
        b"payload=%7B%7D%00",
    ],
)
def test_a_form_that_does_not_hold_one_payload_is_refused(body: bytes) -> None:
    with pytest.raises(UsageError):
        github.parse(headers("push", form=True), body)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data; boundary=x", "application/xml", "application/jsonx", "json"]
)
def test_other_content_types_are_not_read(kind: str) -> None:
    sent, body = delivery("push")
    with pytest.raises(UnsupportedMedia) as refusal:
        github.parse({**sent, "content-type": kind}, body)
    assert refusal.value.http_status == 415


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", " application/json ;x=y"])
def test_the_content_type_may_have_parameters(kind: str) -> None:
    sent, body = delivery("push")
    assert github.parse({**sent, "content-type": kind}, body).event is not None


def test_the_signature_is_the_published_one() -> None:
    known = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    github.verify({"x-hub-signature-256": known}, b"Hello, World!", SECRET)


def test_an_old_sha1_signature_is_no_signature() -> None:
    with pytest.raises(BadSignature) as refusal:
        github.verify({"x-hub-signature": "sha1=" + "0" * 40}, b"Hello, World!", SECRET)
    assert refusal.value.code == "unsigned"


@pytest.mark.parametrize("given", ["x", "", "a b", "<script>", "a" * 101, "a\n"])
def test_a_delivery_id_that_is_none_is_not_taken(given: str) -> None:
    assert github.delivery_id({"x-github-delivery": given}) == (given if given == "x" else None)


parts = st.sampled_from(
    [None, True, 0, -1, 2**70, "", "x", HEAD, [], {}, {"repo": {"id": 1}}, {"login": 5}, {"name": {}}, 1.5]
)


keys = st.sampled_from(
    ["head_commit", "sender", "before", "after", "action", "number", "pull_request", "forced", "deleted", "ref"]
)


@given(st.sampled_from(sorted(SAMPLES)), st.dictionaries(keys, parts, max_size=4))
def test_fields_of_any_type_never_crash(name: str, changes: dict[str, Any]) -> None:
    body = json.dumps(payload(name, **changes)).encode()
    try:
        found = github.parse(headers(SAMPLES[name]["event"]), body)
    except UsageError:
        return
    assert (found.event is None) == bool(found.word)
