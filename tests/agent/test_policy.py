"""An order is obeyed only as it was signed, by this agent, within the host's file, once, and in time."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.agent.policy import Accepted, Refusal, Repeated, check
from keepflow.config.agent_file import load_agent
from keepflow.core import deploys
from keepflow.core.flows import Container, Volume
from keepflow.crypto import dsse, keys
from keepflow.wire.orders import CRITICAL, PAYLOAD_TYPE
from tests.agent.orders import FILE, MINUTE, NOW, V1, V2, Court

COURT = Court()
GOOD = COURT.order()
SIGNED = COURT.sign(GOOD)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)


def refusal(envelope: dict[str, Any], court: Court = COURT) -> str:
    """Return the code an envelope is refused with."""
    verdict = check(envelope, court.facts)
    assert isinstance(verdict, Refusal), verdict
    assert verdict.sentence
    return verdict.code


def test_a_good_order_is_accepted() -> None:
    verdict = check(SIGNED, COURT.facts)
    assert isinstance(verdict, Accepted)
    assert verdict.deployment.identity == V2
    assert verdict.deployment.id == GOOD["deployment"]


def test_the_masters_whole_list_of_critical_fields_is_understood() -> None:
    assert isinstance(check(COURT.sign(COURT.order(critical=list(CRITICAL))), COURT.facts), Accepted)


@pytest.mark.parametrize("name", sorted(GOOD))
@given(value=JSON)
@settings(max_examples=60)
def test_no_field_can_be_altered_under_the_signature(name: str, value: Any) -> None:
    altered = {**GOOD, name: value}
    if deploys_equal(altered, GOOD):
        return
    envelope = copy.deepcopy(SIGNED)
    envelope["payload"] = base64.b64encode(json.dumps(altered).encode()).decode()
    assert refusal(envelope) == "bad-signature"


def deploys_equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return json.dumps(one) == json.dumps(other)


@given(st.data())
@settings(max_examples=400)
def test_no_bit_of_the_envelope_can_be_flipped(data: st.DataObject) -> None:
    part = data.draw(st.sampled_from(["payload", "sig"]))
    raw = bytearray(base64.b64decode(SIGNED["payload"] if part == "payload" else SIGNED["signatures"][0]["sig"]))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    envelope = copy.deepcopy(SIGNED)
    if part == "payload":
        envelope["payload"] = base64.b64encode(raw).decode()
    else:
        envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()
    assert refusal(envelope) == "bad-signature"


@given(JSON)
@settings(max_examples=200)
def test_anything_else_is_refused_and_never_breaks_the_agent(value: Any) -> None:
    envelope = value if isinstance(value, dict) else {"payload": value}
    assert refusal(envelope) == "bad-signature"


@given(st.one_of(JSON, st.just(GOOD)), st.dictionaries(st.sampled_from(sorted(GOOD)), JSON, max_size=4))
@settings(max_examples=400)
def test_even_a_master_gone_mad_cannot_make_the_agent_do_what_its_file_forbids(base: Any, changes: Any) -> None:
    fields = {**base, **changes} if isinstance(base, dict) else base
    try:
        payload = json.dumps(fields).encode()
    except ValueError:
        return
    verdict = check(dsse.seal(payload, PAYLOAD_TYPE, COURT.order_key), COURT.facts)
    if isinstance(verdict, Accepted):
        assert verdict.deployment.service == "shop"
        assert verdict.deployment.environment == "shop/production"
        assert verdict.deployment.repository in COURT.file.services["shop"].images
        assert {volume.name for volume in verdict.deployment.container.volumes} <= {"data"}


def test_unsigned_foreign_and_mistyped_envelopes_are_refused() -> None:
    assert refusal(COURT.sign(GOOD, keys.generate())) == "bad-signature"
    assert refusal({**SIGNED, "signatures": []}) == "bad-signature"
    assert refusal({**SIGNED, "payloadType": "application/json"}) == "bad-signature"
    other_type = dsse.seal(deploys.canonical(GOOD), "application/vnd.in-toto+json", COURT.order_key)
    assert refusal(other_type) == "bad-signature"
    assert refusal({**other_type, "payloadType": PAYLOAD_TYPE}) == "bad-signature"


DESCRIPTION: dict[str, Any] = GOOD["description"]
WITH_COMMAND = Container(release_command=("migrate",))
FOREIGN_VOLUME = Container(volumes=(Volume("data", "/data"), Volume("etc", "/etc")))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 2}, "version"),
        ({"version": "1"}, "version"),
        ({"version": True}, "version"),
        ({"critical": ["fence", "run_as_root"]}, "critical"),
        ({"critical": [{"name": "fence"}]}, "critical"),
        ({"critical": "fence"}, "critical"),
        ({"critical": None}, "critical"),
        ({"fence": "12"}, "bad-order"),
        ({"fence": 12.5}, "bad-order"),
        ({"fence": True}, "bad-order"),
        ({"action": "exec"}, "bad-order"),
        ({"image": "shop"}, "bad-order"),
        ({"expires_at": str(NOW + MINUTE)}, "bad-order"),
        ({"agent": "prod-2"}, "other-agent"),
        ({"agent_key": keys.generate().public.key_id}, "other-agent"),
        ({"service": "shop2"}, "service-unknown"),
        ({"service": "../shop"}, "service-unknown"),
        ({"environment": "shop/test"}, "environment"),
        ({"instance": "feature"}, "instance"),
        ({"image": {"origin": "local", "repository": "evil", "image_id": V2, "digest": None}}, "image-not-allowed"),
        ({"image": {"origin": "local", "repository": "shop", "image_id": "latest", "digest": None}}, "bad-image"),
        ({"image": {"origin": "registry", "repository": "shop", "image_id": V2, "digest": None}}, "bad-image"),
        ({"image": {"origin": "registry", "repository": "shop", "image_id": V2, "digest": "v1"}}, "bad-image"),
        ({"image": {"origin": "local", "repository": "shop", "image_id": V2, "digest": V2}}, "not-made-here"),
        (
            {"image": {"origin": "local", "repository": "shop", "image_id": "sha256:" + "f" * 64, "digest": None}},
            "not-made-here",
        ),
        ({"description": {}}, "description"),
        ({"description": {**DESCRIPTION, "privileged": True}}, "description"),
        ({"description": {**DESCRIPTION, "port": "8099"}}, "description"),
        ({"description": {**DESCRIPTION, "port": 8100}}, "description-hash"),
        ({"description": {**DESCRIPTION, "env": {"A": "b"}}}, "description-hash"),
        ({"container": FOREIGN_VOLUME}, "volume-not-allowed"),
        ({"container": WITH_COMMAND}, "release-command-not-allowed"),
        ({"expires_at": NOW}, "expired"),
        ({"expires_at": NOW - MINUTE, "issued_at": NOW - 2 * MINUTE}, "expired"),
        ({"issued_at": NOW + 2 * MINUTE}, "clock"),
        ({"issued_at": NOW + 10 * MINUTE, "expires_at": NOW + 5 * MINUTE}, "clock"),
        ({"fence": 10}, "stale-fence"),
        ({"fence": 1}, "stale-fence"),
        ({"expect_current": V2}, "expect-current"),
    ],
)
def test_each_check_refuses_under_its_own_name(changes: dict[str, Any], code: str) -> None:
    assert refusal(COURT.sign(COURT.order(**changes))) == code


def test_twice_the_same_name_is_refused() -> None:
    text = json.dumps(GOOD)
    twins = text.replace('"fence":', '"fence": 99999, "fence":', 1).encode()
    assert refusal(dsse.seal(twins, PAYLOAD_TYPE, COURT.order_key)) == "bad-order"


def test_an_unknown_field_that_is_not_critical_is_passed_over() -> None:
    assert isinstance(check(COURT.sign(COURT.order(mood="good")), COURT.facts), Accepted)


def test_what_serves_is_looked_at_when_the_order_says_so() -> None:
    assert isinstance(check(COURT.sign(COURT.order(expect_current=V1)), COURT.facts), Accepted)
    assert refusal(COURT.sign(COURT.order(expect_current=V1)), court_like(COURT, serves=None)) == "expect-current"


def court_like(court: Court, **changes: Any) -> Court:
    return Court(**{**vars(court), **changes})


def test_a_replayed_order_is_answered_and_never_accepted_again() -> None:
    court = court_like(COURT, known={GOOD["deployment"]}, highest=GOOD["fence"])
    verdict = check(SIGNED, court.facts)
    assert isinstance(verdict, Repeated)
    again_under_another_number = court.sign({**GOOD, "fence": GOOD["fence"] + 1})
    assert isinstance(check(again_under_another_number, court.facts), Repeated)


def test_a_host_without_the_capability_deploys_nothing() -> None:
    file = load_agent("master: https://ci.example.org\ncapabilities: [run]\n")
    assert refusal(SIGNED, court_like(COURT, file=file)) == "no-capability"


def test_a_host_whose_file_was_narrowed_obeys_the_new_file() -> None:
    narrowed = load_agent(FILE.replace(", shop]", "]"))
    assert refusal(SIGNED, court_like(COURT, file=narrowed)) == "image-not-allowed"


def test_either_of_two_pinned_keys_will_do() -> None:
    second = keys.generate()
    both = replace(COURT.facts, order_keys=(second.public, COURT.order_key.public))
    assert isinstance(check(SIGNED, both), Accepted)
    assert isinstance(check(COURT.sign(GOOD, second), both), Accepted)
