"""GitLab's two ways to prove itself, and what is its own in its payloads."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.events import Parsed
from keepflow.errors import BadSignature, UsageError
from keepflow.forges import gitlab
from tests.forges.deliveries import BEFORE, HEAD, SAMPLES_OF, SECRETS, delivery, headers, payload

SIGNED = SECRETS["gitlab"]


def parse(name: str, **changes: Any) -> Parsed:
    return gitlab.parse(*delivery(name, forge="gitlab", **changes))


def request(name: str = "pull-request-opened", **changes: Any) -> Parsed:
    attributes = {**payload(name, "gitlab")["object_attributes"], **changes}
    return parse(name, object_attributes=attributes)


def test_r03_the_old_token_is_compared_whole() -> None:
    gitlab.verify({"x-gitlab-token": "a token"}, b"{}", b"a token")
    for given_token in ("", "a", "a token ", "A token", "a tok\xe9n"):
        with pytest.raises(BadSignature):
            gitlab.verify({"x-gitlab-token": given_token}, b"{}", b"a token")


def test_r03_who_has_a_signing_token_is_believed_nothing_that_only_holds_the_token() -> None:
    with pytest.raises(BadSignature) as refusal:
        gitlab.verify({"x-gitlab-token": SIGNED.decode()}, b"{}", SIGNED)
    assert refusal.value.code == "unsigned"


def test_one_good_signature_among_several_is_enough_while_a_key_is_changed() -> None:
    sent, body = delivery("push", forge="gitlab")
    gitlab.verify({**sent, "webhook-signature": f"v1,AAAA {sent['webhook-signature']} v2,x"}, body, SIGNED)


def test_r03_an_old_signature_is_refused_and_so_is_another_id(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, body = delivery("push", forge="gitlab")
    with pytest.raises(BadSignature):
        gitlab.verify({**sent, "webhook-id": "another"}, body, SIGNED)
    later = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(BadSignature) as refusal:
        gitlab.verify(sent, body, SIGNED)
    assert refusal.value.code == "stale"


def test_a_signing_token_that_is_none_is_said_to_be() -> None:
    sent, body = delivery("push", forge="gitlab")
    with pytest.raises(BadSignature) as refusal:
        gitlab.verify(sent, body, b"whsec_###")
    assert refusal.value.code == "no-secret"


def test_the_id_that_is_signed_goes_before_the_others() -> None:
    every = {"webhook-id": "a", "idempotency-key": "b", "x-gitlab-event-uuid": "c"}
    assert gitlab.delivery_id(every) == "a"
    del every["webhook-id"]
    assert gitlab.delivery_id(every) == "b"
    del every["idempotency-key"]
    assert gitlab.delivery_id(every) == "c"
    assert gitlab.delivery_id({}) is None


def test_a_new_branch_lists_no_commits_and_is_built_all_the_same() -> None:
    found = parse("push-new-branch").event
    assert found is not None
    assert (found.sha, found.message, found.author, found.url) == (HEAD, "", "", "")


def test_r06_an_update_without_new_commits_is_no_new_code() -> None:
    assert request(action="update").word == "ignored"
    found = request(action="update", oldrev=BEFORE).event
    assert found is not None
    assert found.before == BEFORE


@pytest.mark.parametrize(
    "changes", [{"iid": True}, {"iid": 0}, {"target_branch": "a..b"}, {"last_commit": None}, {"action": 5}]
)
def test_a_merge_request_that_git_could_not_have_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        request(**changes)


parts = st.sampled_from([None, True, 0, -1, 2**70, "", "x", HEAD, [], {}, [None], [{"id": HEAD}], {"id": HEAD}, 1.5])
keys = st.sampled_from(
    ["ref", "before", "after", "checkout_sha", "commits", "user", "user_username", "object_attributes", "project"]
)


@given(st.sampled_from(sorted(SAMPLES_OF["gitlab"])), st.dictionaries(keys, parts, max_size=4))
def test_fields_of_any_type_never_crash(name: str, changes: dict[str, Any]) -> None:
    try:
        found = parse(name, **changes)
    except UsageError:
        return
    assert (found.event is None) == bool(found.word)


inner = st.sampled_from(
    ["action", "iid", "last_commit", "source_project_id", "target_branch", "title", "url", "oldrev"]
)


@given(st.dictionaries(inner, parts, max_size=4))
def test_attributes_of_any_type_never_crash(changes: dict[str, Any]) -> None:
    try:
        found = request(**changes)
    except UsageError:
        return
    assert (found.event is None) == bool(found.word)


def test_another_event_name_reads_nothing() -> None:
    body = delivery("push", forge="gitlab")[1]
    assert gitlab.parse(headers("System Hook", body, SIGNED, forge="gitlab"), body).word == "unknown-event"
