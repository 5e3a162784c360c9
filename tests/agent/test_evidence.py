"""No receipt, no promote: the host itself reads how an image was built and tested before it takes an order."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from keepflow.agent.policy import Accepted, Refusal, Repeated, check
from keepflow.core.receipts import Subject
from keepflow.crypto import keys, receipts
from keepflow.wire.orders import EVIDENCE, MOST_RECEIPTS
from tests.agent.orders import V2, Court
from tests.agent.proofs import DIGEST, PAGE, REPOSITORY, asking, built, judged, promote

COURT = Court()
STRANGER, WITNESS = keys.generate(), keys.generate()
GOOD = (built(COURT), judged(COURT))
LOCAL = {"origin": "local", "repository": "shop", "image_id": V2, "digest": None}


def verdict(fields: dict[str, Any], court: Court = COURT) -> str:
    """Return the code an order is refused with, or "" when it is taken."""
    found = check(court.sign(fields), court.facts)
    assert isinstance(found, Accepted | Refusal)
    return found.code if isinstance(found, Refusal) else ""


def host(line: str) -> Court:
    """Return the same host with a line more for its service."""
    return Court(**{**vars(COURT), "file": asking(line)})


def test_a_promote_with_its_receipts_is_taken() -> None:
    assert verdict(promote(COURT, *GOOD)) == ""
    assert verdict(promote(COURT, *reversed(GOOD))) == ""


def unknown_parameter() -> dict[str, Any]:
    """Return a provenance of the master's with a parameter more than anybody here knows."""
    statement = json.loads(base64.b64decode(GOOD[0]["payload"]))
    statement["predicate"]["buildDefinition"]["externalParameters"]["image"] = "evil"
    return receipts.seal(statement, COURT.order_key)


ANN_REJECTED = judged(COURT, passed=False, person="ann", at=5)
OTHER = Subject(REPOSITORY, "sha256:" + "e" * 64)


@pytest.mark.parametrize(
    ("proofs", "code"),
    [
        ((), "receipt-missing"),
        ((GOOD[0],), "receipt-missing"),
        ((GOOD[1],), "receipt-missing"),
        ((built(COURT, STRANGER), GOOD[1]), "receipt-signature"),
        ((GOOD[0], judged(COURT, STRANGER)), "receipt-signature"),
        ((*GOOD, {"payload": ""}), "receipt-signature"),
        ((built(COURT, subject=OTHER), GOOD[1]), "receipt-subject"),
        ((GOOD[0], judged(COURT, subject=OTHER)), "receipt-subject"),
        ((built(COURT, subject=Subject("registry.example.org:5000/other", DIGEST)), GOOD[1]), "receipt-subject"),
        ((built(COURT, builder=f"{PAGE}#{STRANGER.public.key_id}"), GOOD[1]), "receipt-builder"),
        ((unknown_parameter(), GOOD[1]), "receipt-parameters"),
        ((GOOD[0], judged(COURT, passed=False)), "receipt-missing"),
        ((*GOOD, judged(COURT, passed=False, person="ann", at=1)), "receipt-rejected"),
        (
            (*GOOD, judged(COURT, passed=False, person="ann", at=5), judged(COURT, person="bo", at=4)),
            "receipt-rejected",
        ),
        ((*GOOD, judged(COURT, passed=False, person="ann", at=4), judged(COURT, person="bo", at=5)), ""),
        ((GOOD[0], *[GOOD[1]] * MOST_RECEIPTS), "bad-order"),
    ],
)
def test_a_promote_is_refused_by_the_name_of_what_its_receipts_lack(proofs: tuple[Any, ...], code: str) -> None:
    assert verdict(promote(COURT, *proofs)) == code


REJECTED = (*GOOD, judged(COURT, passed=False, person="ann"))


@pytest.mark.parametrize(
    ("evidence", "proofs", "code"),
    [
        ("none", (), ""),
        ("built", (), "receipt-missing"),
        ("built", (GOOD[0],), ""),
        ("passed", (GOOD[0],), "receipt-missing"),
        ("passed", REJECTED, ""),
        ("tested", REJECTED, "receipt-rejected"),
    ],
)
def test_the_order_says_how_much_its_environment_asks_for(evidence: str, proofs: tuple[Any, ...], code: str) -> None:
    assert verdict(promote(COURT, *proofs, evidence=evidence)) == code


def test_an_order_that_does_not_say_is_asked_for_everything() -> None:
    silent = promote(COURT)
    del silent["evidence"]
    assert verdict(silent) == "receipt-missing"


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_a_host_that_requires_receipts_asks_for_them_whatever_the_order_says(evidence: str) -> None:
    strict = host("receipts: required")
    assert verdict(promote(COURT, evidence=evidence), strict) == "receipt-missing"
    assert verdict(promote(COURT, GOOD[0], evidence=evidence), strict) == "receipt-missing"
    assert verdict(promote(COURT, *REJECTED, evidence=evidence), strict) == "receipt-rejected"
    assert verdict(promote(COURT, *GOOD, evidence=evidence), strict) == ""
    assert verdict(COURT.order(image=LOCAL, evidence=evidence), strict) == "receipt-missing"


def test_a_rollback_to_what_passed_once_is_taken_even_where_receipts_are_required() -> None:
    strict = host("receipts: required")
    assert verdict(promote(COURT, *REJECTED, evidence="none", action="rollback"), strict) == ""
    assert verdict(promote(COURT, GOOD[0], evidence="none", action="rollback"), strict) == "receipt-missing"


def test_a_host_with_a_witness_takes_no_build_on_the_masters_word_alone() -> None:
    strict = host(f"receipts_from: {WITNESS.public.text}")
    assert verdict(promote(COURT, *GOOD, evidence="none"), strict) == "receipt-signature"
    witnessed = built(COURT, COURT.order_key, WITNESS)
    assert verdict(promote(COURT, witnessed, GOOD[1], evidence="none"), strict) == ""
    assert verdict(promote(COURT, witnessed, judged(COURT, WITNESS)), strict) == "receipt-signature"
    foreign = built(COURT, WITNESS, builder=f"https://other.example.org#{STRANGER.public.key_id}")
    assert verdict(promote(COURT, foreign, GOOD[1]), strict) == "receipt-builder"


def test_what_was_accepted_before_is_answered_even_when_it_was_rejected_since() -> None:
    fields = promote(COURT, *REJECTED)
    court = Court(**{**vars(COURT), "known": {fields["deployment"]}})
    assert isinstance(check(court.sign(fields), court.facts), Repeated)
