"""A thousand orders altered, forged, mixed or replayed by somebody with everything but the master's key: none is taken.

The attacker has seen good orders of every kind, owns a key of their own, and delivers whatever they like. The checker
is the agent's own, the signatures are real. A fixed seed makes every run the same.
"""

from __future__ import annotations

import base64
import copy
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from keepflow.agent.policy import Accepted, Refusal, Repeated, check
from keepflow.core import deploys
from keepflow.crypto import dsse, keys
from keepflow.wire.orders import PAYLOAD_TYPE
from tests.agent.orders import MINUTE, NOW, V1, V3, Court
from tests.agent.proofs import asking, built, judged, promote

ATTACKS = 1000
THEIRS = keys.generate()
COURT = Court(file=asking("receipts: required"))
PROOFS = (built(COURT), judged(COURT, person="ann"))
Envelope = dict[str, Any]


def orders() -> list[dict[str, Any]]:
    """Return the fields of good orders of every kind."""
    return [
        promote(COURT, *PROOFS),
        promote(COURT, *PROOFS, expect_current=V1),
        promote(COURT, *PROOFS, action="rollback", evidence="passed"),
    ]


GOOD = orders()
SIGNED = [COURT.sign(fields) for fields in GOOD]
NASTY: list[Any] = [None, True, 0, -1, 2**63, "", "*", "../shop", [], {}, "sha256:" + "f" * 64, ["tested"], {"a": "b"}]


def payload_of(envelope: Envelope) -> dict[str, Any]:
    """Return what is inside an envelope."""
    read: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return read


def with_payload(envelope: Envelope, fields: Any) -> Envelope:
    """Put another payload under the old signatures."""
    return {**envelope, "payload": base64.b64encode(json.dumps(fields).encode()).decode()}


def flipped_bit(chance: random.Random) -> Envelope:
    """Flip one bit of payload or signature."""
    envelope = copy.deepcopy(chance.choice(SIGNED))
    holder, name = chance.choice([(envelope, "payload"), (envelope["signatures"][0], "sig")])
    raw = bytearray(base64.b64decode(holder[name]))
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    holder[name] = base64.b64encode(raw).decode()
    return envelope


def altered_field(chance: random.Random) -> Envelope:
    """Change, drop or add a field under the old signature."""
    envelope = chance.choice(SIGNED)
    fields = payload_of(envelope)
    name = chance.choice([*fields, "run_as_root"])
    if name in fields and chance.random() < 0.3:
        del fields[name]
    else:
        fields[name] = chance.choice([value for value in NASTY if value != fields.get(name, THEIRS)])
    return with_payload(envelope, fields)


def own_signature(chance: random.Random) -> Envelope:
    """Sign any order with another key, and claim the master's key id."""
    envelope = COURT.sign(chance.choice(GOOD), THEIRS)
    if chance.random() < 0.5:
        envelope["signatures"][0]["keyid"] = COURT.order_key.public.key_id
    if chance.random() < 0.5:
        envelope["signatures"] *= chance.randrange(1, 20)
    return envelope


def mixed(chance: random.Random) -> Envelope:
    """Put the signature of one order under another."""
    one, other = chance.sample(SIGNED, 2)
    return {**one, "signatures": other["signatures"]}


def retyped(chance: random.Random) -> Envelope:
    """Pass a receipt off as an order, or an order off as something else."""
    if chance.random() < 0.5:
        return {**chance.choice(PROOFS), "payloadType": PAYLOAD_TYPE}
    return {**chance.choice(SIGNED), "payloadType": chance.choice(["application/json", "", PAYLOAD_TYPE + " "])}


def mangled(chance: random.Random) -> Envelope:
    """Break the envelope itself."""
    envelope = copy.deepcopy(chance.choice(SIGNED))
    name = chance.choice(["payload", "payloadType", "signatures"])
    if chance.random() < 0.3:
        del envelope[name]
    else:
        envelope[name] = chance.choice([value for value in NASTY if value != envelope[name]])
    return envelope


def resigned_with_foreign_receipts(chance: random.Random) -> Envelope:
    """The master signs, but the receipts it was given were altered, forged, or are about something else."""
    proofs = copy.deepcopy(list(PROOFS))
    index = chance.randrange(len(proofs))
    how = chance.randrange(4)
    if how == 0:
        raw = bytearray(base64.b64decode(proofs[index]["payload"]))
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        proofs[index]["payload"] = base64.b64encode(raw).decode()
    elif how == 1:
        payload = base64.b64decode(proofs[index]["payload"])
        proofs[index] = dsse.seal(payload, proofs[index]["payloadType"], THEIRS)
    elif how == 2:
        del proofs[index]
    else:
        proofs.append(judged(COURT, passed=False, person="ann", at=NOW + 1))
    return COURT.sign(promote(COURT, *proofs))


def stale(chance: random.Random) -> Envelope:
    """The master's own words, too late, too early, for another host, key, service or number."""
    changes: dict[str, Any] = chance.choice(
        [
            {"expires_at": NOW - chance.randrange(1, 10**12)},
            {"issued_at": NOW + MINUTE + chance.randrange(1, 10**12)},
            {"fence": chance.randrange(1, COURT.highest + 1)},
            {"agent": "prod-2"},
            {"agent_key": THEIRS.public.key_id},
            {"service": "shop2"},
            {"environment": "shop/test"},
            {"instance": "feature"},
            {"expect_current": V3},
        ]
    )
    return COURT.sign({**chance.choice(orders()), **changes})


KINDS: list[Callable[[random.Random], Envelope]] = [
    flipped_bit,
    altered_field,
    own_signature,
    mixed,
    retyped,
    mangled,
    resigned_with_foreign_receipts,
    stale,
]


@pytest.mark.parametrize("envelope", SIGNED)
def test_the_orders_that_are_attacked_are_good_ones(envelope: Envelope) -> None:
    assert isinstance(check(envelope, COURT.facts), Accepted)


def test_p11_of_a_thousand_altered_orders_none_is_accepted(numbers: Callable[..., None]) -> None:
    chance = random.Random(20)  # noqa: S311 - the same attacks every time, no secret
    refused: Counter[str] = Counter()
    for number in range(ATTACKS):
        envelope = KINDS[number % len(KINDS)](chance)
        verdict = check(envelope, COURT.facts)
        assert isinstance(verdict, Refusal), (KINDS[number % len(KINDS)].__name__, envelope)
        refused[verdict.code] += 1
    assert {"bad-signature", "receipt-signature", "receipt-rejected", "expired", "stale-fence"} <= set(refused)
    numbers(altered=ATTACKS, accepted=0, **refused)


def test_p11_of_a_thousand_replayed_orders_none_runs_again(numbers: Callable[..., None]) -> None:
    highest, known, answers = COURT.highest, set[str](), Counter[str]()
    chance = random.Random(22)  # noqa: S311 - the same attacks every time, no secret
    for number in range(ATTACKS // 20):
        fields = {**promote(COURT, *PROOFS), "fence": highest + 1, "deployment": f"r-{number}"}
        taken = COURT.sign(fields)
        court = Court(**{**vars(COURT), "highest": highest, "known": known})
        assert isinstance(check(taken, court.facts), Accepted)
        highest, known = highest + 1, known | {fields["deployment"]}
        for _replay in range(20):
            later = NOW + chance.choice([0, MINUTE, 9 * MINUTE, 10**13])
            forgot = chance.random() < 0.5  # the journal of the deployment was swept since; its number was not
            again = Court(**{**vars(COURT), "highest": highest, "known": set() if forgot else known, "now": later})
            verdict = check(taken, again.facts)
            assert not isinstance(verdict, Accepted)
            answers[verdict.code if isinstance(verdict, Refusal) else "answered with its status"] += 1
    assert sum(answers.values()) == ATTACKS
    assert not [key for key in answers if key not in ("answered with its status", "stale-fence", "expired")]
    numbers(replayed=ATTACKS, accepted=0, **answers)


def test_an_order_is_canonical_so_that_it_has_one_spelling() -> None:
    assert base64.b64decode(SIGNED[0]["payload"]) == deploys.canonical(GOOD[0])
    assert isinstance(check(SIGNED[0], Court(**{**vars(COURT), "known": {GOOD[0]["deployment"]}}).facts), Repeated)
