"""What every forge must do, whatever it is called: added forges are tested before their author writes a test."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.core.events import EventKind
from keepflow.core.statuses import CommitStatus, Verdict
from keepflow.errors import BadSignature, UsageError
from keepflow.ports import discover
from tests.forges.deliveries import BEFORE, DELIVERY, HEAD, SAMPLES_OF, SECRETS, delivery, payload
from tests.forges.deliveries import headers as signed

FORGES = discover("keepflow.forges")
every_forge = pytest.mark.parametrize("name", list(FORGES))


def test_the_forges_of_today_are_found_by_file_name() -> None:
    assert set(FORGES) == set(SAMPLES_OF) == set(SECRETS) >= {"github", "bare", "gitea", "gitlab"}


@every_forge
def test_a_forge_has_the_seven_functions(name: str) -> None:
    functions = ("delivery_id", "event_name", "verify", "parse", "set_status", "hook_place", "pull_place")
    assert all(callable(getattr(FORGES[name], found)) for found in functions)


@every_forge
@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_r01_a_signed_push_is_believed_and_read(name: str, form: bool) -> None:
    forge, (headers, body) = FORGES[name], delivery("push", form=form, forge=name)
    forge.verify(headers, body, SECRETS[name])
    event = forge.parse(headers, body).event
    assert (event.kind, event.ref, event.sha, event.before) == (EventKind.PUSH, "refs/heads/dev", HEAD, BEFORE)
    assert (event.actor, event.author) == ("bo", "Ann Author")
    assert event.message.startswith("Mend the login page\n")
    assert event.url.endswith(f"/commit/{HEAD}")
    assert forge.delivery_id(headers) == DELIVERY
    assert forge.event_name(headers) == SAMPLES_OF[name]["push"]["event"]


@every_forge
def test_a_new_branch_comes_from_nowhere(name: str) -> None:
    event = FORGES[name].parse(*delivery("push-new-branch", forge=name)).event
    assert (event.ref, event.sha, event.before) == ("refs/heads/feature/login", HEAD, None)


@every_forge
@pytest.mark.parametrize(("sample", "tag"), [("push-tag", "v1.0"), ("push-annotated-tag", "v1.1")])
def test_r05_a_tag_names_its_commit_and_never_the_tag_object(name: str, sample: str, tag: str) -> None:
    event = FORGES[name].parse(*delivery(sample, forge=name)).event
    assert (event.kind, event.tag, event.sha) == (EventKind.TAG, tag, HEAD)


#: What the sample of that name comes to, at every forge that can send one.
WORDS = {
    "ping": "ping",
    "push-deleted": "deleted",
    "push-deleted-tag": "deleted",
    "push-without-head": "no-commit",
    "pull-request-closed": "closed",
    "pull-request-labeled": "ignored",
    "create-tag": "ignored",
    "issue-comment": "unknown-event",
    "star": "unknown-event",
}


@every_forge
def test_r04_what_starts_nothing_is_a_word_with_a_sentence(name: str) -> None:
    found = {
        sample: FORGES[name].parse(*delivery(sample, forge=name)) for sample in WORDS if sample in SAMPLES_OF[name]
    }
    assert {sample: parsed.word for sample, parsed in found.items()} == {sample: WORDS[sample] for sample in found}
    assert all(parsed.event is None and parsed.sentence.isprintable() for parsed in found.values())
    assert {"push-deleted", "push-deleted-tag", "issue-comment"} <= found.keys()


pulls = pytest.mark.parametrize("name", [name for name in FORGES if "pull-request-opened" in SAMPLES_OF[name]])


@pulls
@pytest.mark.parametrize("sample", ["pull-request-opened", "pull-request-reopened", "pull-request-synchronize"])
def test_r06_new_code_of_a_pull_request_is_an_event(name: str, sample: str) -> None:
    event = FORGES[name].parse(*delivery(sample, forge=name)).event
    assert (event.kind, event.sha, event.target, event.number) == (
        EventKind.PULL_REQUEST,
        HEAD,
        "refs/heads/master",
        7,
    )
    assert event.ref in ("refs/pull/7/head", "refs/merge-requests/7/head")
    assert (event.fork, event.message, event.actor) == (False, "Mend the login page", "ann")
    assert event.url.endswith("/7")


@pulls
def test_r06_a_closed_pull_request_says_which_one(name: str) -> None:
    parsed = FORGES[name].parse(*delivery("pull-request-closed", forge=name))
    assert (parsed.event, parsed.word, parsed.closed.number) == (None, "closed", 7)
    assert parsed.closed.ref == FORGES[name].parse(*delivery("pull-request-opened", forge=name)).event.ref


@pulls
def test_r06_the_api_shows_a_pull_request_as_its_hook_tells_it(name: str) -> None:
    told = FORGES[name].parse(*delivery("pull-request-opened", forge=name)).event
    place = FORGES[name].pull_place("https://git.example.org/team/shop.git", "", "the-token")
    assert place.url.startswith("https://git.example.org/api/")
    assert "the-token" not in place.url + repr(place)
    sample = payload("pull-request-opened", name)
    shown = {**sample.get("pull_request", {}), "number": 7, "state": "open"}
    if name == "gitlab":
        request = sample["object_attributes"]
        own = {"state": "opened", "sha": request["last_commit"]["id"], "author": sample["user"]}
        shown = {**request, **own, "web_url": request["url"]}
    event = place.read(shown)
    assert (event.ref, event.sha, event.target, event.number) == (told.ref, told.sha, told.target, told.number)
    assert (event.fork, event.message, event.author) == (False, told.message, told.author)
    assert place.read({**shown, "state": "closed"}) is None


@pulls
@pytest.mark.parametrize("sample", ["pull-request-from-fork", "pull-request-from-deleted-fork"])
def test_r06_a_pull_request_from_a_fork_says_so(name: str, sample: str) -> None:
    assert FORGES[name].parse(*delivery(sample, forge=name)).event.fork


@every_forge
def test_every_sample_of_a_forge_means_something(name: str) -> None:
    for sample in SAMPLES_OF[name]:
        parsed = FORGES[name].parse(*delivery(sample, forge=name))
        assert (parsed.event is None) == bool(parsed.word), sample
        assert sample in WORDS or parsed.event is not None, sample


@every_forge
@pytest.mark.parametrize("wrong", [b"", b"another", b"whsec_bm90IHRoaXMgb25l", "same and a blank", "same but one"])
def test_r03_another_secret_or_none_is_refused(name: str, wrong: bytes | str) -> None:
    secret = SECRETS[name]
    bad = wrong if isinstance(wrong, bytes) else secret + b" " if "blank" in wrong else secret[:-2]
    with pytest.raises(BadSignature):
        FORGES[name].verify(*delivery("push", forge=name), bad)


@every_forge
def test_r66_a_status_is_told_by_one_request_that_holds_the_token_in_its_headers_only(name: str) -> None:
    status = CommitStatus(HEAD, Verdict.FAILURE, "keepflow/dev", "failed: exit code 2", "https://ci.example.org/1")
    request = FORGES[name].set_status("https://git.example.org/team/shop.git", "", "the-token", status)
    if request is None:
        assert name == "bare"
        return
    assert request.url.startswith("https://git.example.org/api/")
    assert request.url.endswith(f"/statuses/{HEAD}")
    assert {"keepflow/dev", status.description, status.url} <= set(request.body.values())
    assert "the-token" in " ".join(request.headers.values())
    assert "the-token" not in request.url + repr(request)
    assert FORGES[name].set_status("/srv/git/shop.git", "", "t", status) is None
    given = FORGES[name].set_status("git@here:team/shop.git", "https://forge.example.org/api", "t", status)
    assert given.url.startswith("https://forge.example.org/api/")


@every_forge
def test_r11_hooks_are_asked_for_at_one_address_with_the_token_in_headers_only(name: str) -> None:
    place = FORGES[name].hook_place("https://git.example.org/team/shop.git", "", "the-token")
    assert FORGES[name].hook_place("/srv/git/shop.git", "", "t") is None
    if place is None:
        assert name == "bare"
        return
    assert place.url.startswith("https://git.example.org/api/")
    assert place.url.endswith("/hooks")
    assert "the-token" in " ".join(place.headers.values())
    assert "the-token" not in place.url + repr(place)
    assert "team/shop" in place.page
    given = FORGES[name].hook_place("git@here:team/shop.git", "https://forge.example.org/api", "t")
    assert given.url.startswith("https://forge.example.org/api/")
    body = place.body("https://ci.example.org/hooks/shop", "a-secret")
    assert "https://ci.example.org/hooks/shop" in json.dumps(body)
    made = {**body, "id": 7}
    assert (place.read(made).id, place.read(made).url, place.read(made).fits) == ("7", body_url(body), True)
    for wrong in ({}, {"id": "7"}, {"id": -1}, {"id": True}, {"id": "../7"}):
        with pytest.raises(UsageError):
            place.read({**body, **wrong} if wrong else body)
    assert not place.read({"id": 1, "config": 5, "events": [{}], "url": None}).fits


def body_url(body: Mapping[str, Any]) -> str:
    """Return where a hook tells, wherever its forge writes it."""
    return str(body.get("url") or body["config"]["url"])


@every_forge
def test_an_empty_secret_signs_nothing(name: str) -> None:
    with pytest.raises(BadSignature):
        FORGES[name].verify(signed("push", b"{}", secret=b"", forge=name), b"{}", b"")


@every_forge
def test_a_delivery_without_its_signature_is_refused(name: str) -> None:
    headers, body = delivery("push", forge=name)
    signatures = [header for header in headers if "signature" in header]
    assert signatures
    for header in signatures:
        with pytest.raises(BadSignature):
            FORGES[name].verify({key: value for key, value in headers.items() if key != header}, body, SECRETS[name])


@every_forge
def test_every_flipped_bit_of_a_signed_body_is_refused(name: str) -> None:
    headers, body = delivery("push", forge=name)
    sample = random.Random(4).sample(range(len(body) * 8), 2000)  # noqa: S311 - which bits are tried needs no secrecy
    for bit in sample:
        changed = bytearray(body)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSignature):
            FORGES[name].verify(headers, bytes(changed), SECRETS[name])


@every_forge
def test_every_changed_character_of_the_signature_is_refused(name: str) -> None:
    headers, body = delivery("push", forge=name)
    header = next(header for header in headers if "signature" in header)
    for position in range(len(headers[header])):
        for character in "0x\xe9 ":
            value = headers[header][:position] + character + headers[header][position + 1 :]
            if value != headers[header]:
                with pytest.raises(BadSignature):
                    FORGES[name].verify({**headers, header: value}, body, SECRETS[name])


names = st.sampled_from(
    [
        *("content-type", "x-github-event", "x-github-delivery", "x-hub-signature-256", "user-agent"),
        *("x-gitlab-event", "x-gitlab-token", "webhook-id", "webhook-timestamp", "webhook-signature"),
        *("x-gitea-event", "x-gitea-delivery", "x-gitea-signature", "x-forgejo-signature"),
    ]
)
values = st.sampled_from(
    [
        "",
        "push",
        "ping",
        "pull_request",
        "Push Hook",
        "Merge Request Hook",
        "v1,",
        "1",
        "delete",
        "application/json",
        "application/x-www-form-urlencoded",
        "sha256=",
    ]
) | st.text(max_size=90)
bodies = (
    st.binary(max_size=300)
    | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass"))
    | st.dictionaries(
        st.sampled_from([*payload("push"), *payload("push", "gitlab"), *payload("pull-request-opened", "gitlab")]),
        st.none() | st.text(max_size=60) | st.booleans(),
        max_size=6,
    ).map(lambda shape: json.dumps(shape).encode())
)


@every_forge
@settings(max_examples=300)
@given(headers=st.dictionaries(names, values, max_size=6), body=bodies)
def test_no_headers_and_no_bytes_ever_crash(name: str, headers: dict[str, str], body: bytes) -> None:
    forge = FORGES[name]
    with pytest.raises(BadSignature):
        forge.verify(headers, body, SECRETS[name])
    forge.event_name(headers)
    forge.delivery_id(headers)
    try:
        parsed = forge.parse(headers, body)
    except UsageError:
        return
    assert (parsed.event is None) == bool(parsed.word)
