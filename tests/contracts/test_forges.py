"""What every forge must do, whatever it is called: added forges are tested before their author writes a test."""

from __future__ import annotations

import json
import random
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.core.events import EventKind
from keepflow.errors import BadSignature, UsageError
from keepflow.ports import discover
from tests.forges.deliveries import HEAD, SECRET, delivery, payload

FORGES = discover("keepflow.forges")
every_forge = pytest.mark.parametrize("forge", list(FORGES.values()), ids=list(FORGES))


def test_the_forges_of_today_are_found_by_file_name() -> None:
    assert {"github", "bare"} <= set(FORGES)


@every_forge
def test_a_forge_has_the_four_functions(forge: ModuleType) -> None:
    assert all(callable(getattr(forge, name)) for name in ("delivery_id", "event_name", "verify", "parse"))


@every_forge
@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_a_signed_push_is_believed_and_read(forge: ModuleType, form: bool) -> None:
    headers, body = delivery("push", form=form)
    forge.verify(headers, body, SECRET)
    parsed = forge.parse(headers, body)
    assert (parsed.event.kind, parsed.event.ref, parsed.event.sha) == (EventKind.PUSH, "refs/heads/dev", HEAD)
    assert forge.delivery_id(headers) == "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    assert forge.event_name(headers) == "push"


@every_forge
def test_a_tag_is_a_tag_and_a_ping_is_a_ping(forge: ModuleType) -> None:
    assert forge.parse(*delivery("push-tag")).event.kind == EventKind.TAG
    assert forge.parse(*delivery("ping")).word == "ping"


@every_forge
@pytest.mark.parametrize(
    ("name", "word"), [("push-deleted", "deleted"), ("push-without-head", "no-commit"), ("star", "unknown-event")]
)
def test_what_starts_nothing_is_a_word_with_a_sentence(forge: ModuleType, name: str, word: str) -> None:
    parsed = forge.parse(*delivery(name))
    assert (parsed.event, parsed.word) == (None, word)
    assert parsed.sentence.isprintable()


@every_forge
@pytest.mark.parametrize("secret", [b"", b"another", SECRET + b" ", SECRET[:-1]])
def test_another_secret_or_none_is_refused(forge: ModuleType, secret: bytes) -> None:
    headers, body = delivery("push")
    with pytest.raises(BadSignature):
        forge.verify(headers, body, secret)


@every_forge
def test_an_empty_secret_signs_nothing(forge: ModuleType) -> None:
    from tests.forges.deliveries import headers as signed

    with pytest.raises(BadSignature):
        forge.verify(signed("push", b"{}", secret=b""), b"{}", b"")


@every_forge
def test_a_delivery_without_its_signature_is_refused(forge: ModuleType) -> None:
    headers, body = delivery("push")
    for name in [name for name in headers if "signature" in name]:
        with pytest.raises(BadSignature):
            forge.verify({key: value for key, value in headers.items() if key != name}, body, SECRET)


@every_forge
def test_every_flipped_bit_of_a_signed_body_is_refused(forge: ModuleType) -> None:
    headers, body = delivery("push")
    sample = random.Random(4).sample(range(len(body) * 8), 2000)  # noqa: S311 - which bits are tried needs no secrecy
    for bit in sample:
        changed = bytearray(body)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSignature):
            forge.verify(headers, bytes(changed), SECRET)


@every_forge
def test_every_changed_character_of_the_signature_is_refused(forge: ModuleType) -> None:
    headers, body = delivery("push")
    name = next(name for name in headers if "signature" in name)
    for position in range(len(headers[name])):
        for character in "0x\xe9 ":
            value = headers[name][:position] + character + headers[name][position + 1 :]
            if value != headers[name]:
                with pytest.raises(BadSignature):
                    forge.verify({**headers, name: value}, body, SECRET)


names = st.sampled_from(
    ["content-type", "x-github-event", "x-github-delivery", "x-hub-signature-256", "x-gitlab-token", "user-agent"]
)
values = st.sampled_from(
    ["", "push", "ping", "pull_request", "application/json", "application/x-www-form-urlencoded", "sha256="]
) | st.text(max_size=90)
bodies = (
    st.binary(max_size=300)
    | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass"))
    | st.dictionaries(
        st.sampled_from(list(payload("push"))), st.none() | st.text(max_size=60) | st.booleans(), max_size=6
    ).map(lambda shape: json.dumps(shape).encode())
)


@every_forge
@settings(max_examples=300)
@given(headers=st.dictionaries(names, values, max_size=6), body=bodies)
def test_no_headers_and_no_bytes_ever_crash(forge: ModuleType, headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(BadSignature):
        forge.verify(headers, body, SECRET)
    forge.event_name(headers)
    forge.delivery_id(headers)
    try:
        parsed = forge.parse(headers, body)
    except UsageError:
        return
    assert (parsed.event is None) == bool(parsed.word)
