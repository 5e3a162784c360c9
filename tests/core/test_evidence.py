"""No receipt, no promote: what is missing or against it is said in a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keepflow.core.evidence import Evidence, guard
from tests.core.test_receipts import BUILD, RESULT

BY_RUN = replace(RESULT, person="", note="")
REJECTED = replace(RESULT, passed=False, note="the cart\nis empty")


@pytest.mark.parametrize(
    ("found", "person_wanted", "met", "says"),
    [
        (Evidence(BUILD, BY_RUN), False, True, "seen serving"),
        (Evidence(BUILD, RESULT), False, True, "tested by ann"),
        (Evidence(BUILD, RESULT), True, True, "tested by ann"),
        (Evidence(BUILD, BY_RUN), True, False, "no person tested it"),
        (Evidence(BUILD, REJECTED), False, False, "ann rejected this digest in shop/test: the cart is empty"),
        (Evidence(BUILD, None), False, False, "no receipt says that this digest passed a test"),
        (Evidence(None, RESULT), False, False, "no receipt says which run built this digest"),
        (Evidence(BUILD, RESULT, "receipt 4 does not fit"), False, False, "receipt 4 does not fit"),
    ],
)
def test_each_lack_of_evidence_has_its_sentence(found: Evidence, person_wanted: bool, met: bool, says: str) -> None:
    verdict = guard(found, person_wanted=person_wanted)
    assert (verdict.code, verdict.met) == ("receipt", met)
    assert says in verdict.sentence
