"""What is Gitea's and Forgejo's own: their headers, and what they sign of a form."""

from __future__ import annotations

import hmac

import pytest

from keepflow.errors import BadSignature
from keepflow.forges import gitea
from tests.forges.deliveries import DELIVERY, SECRET, delivery


def test_forgejo_says_the_same_under_its_own_names_and_they_go_first() -> None:
    sent, body = delivery("push", forge="gitea")
    own = {name.replace("gitea", "forgejo"): value for name, value in sent.items()}
    gitea.verify(own, body, SECRET)
    assert gitea.parse(own, body) == gitea.parse(sent, body)
    assert gitea.delivery_id(own) == DELIVERY
    with pytest.raises(BadSignature):
        gitea.verify({**sent, "x-forgejo-signature": "00" * 32}, body, SECRET)


def test_a_form_is_signed_by_its_json_and_not_by_its_own_bytes() -> None:
    sent, body = delivery("push", form=True, forge="gitea")
    gitea.verify(sent, body, SECRET)
    over_the_form = {**sent, "x-gitea-signature": hmac.digest(SECRET, body, "sha256").hex()}
    with pytest.raises(BadSignature):
        gitea.verify(over_the_form, body, SECRET)


@pytest.mark.parametrize("body", [b"", b"x=1", b"payload=%ff", b"\xff"])
def test_a_form_that_holds_no_payload_proves_nothing(body: bytes) -> None:
    sent, _ = delivery("push", form=True, forge="gitea")
    with pytest.raises(BadSignature):
        gitea.verify(sent, body, SECRET)


def test_r07_a_test_delivery_builds_nothing() -> None:
    """The button in Gitea sends a push from the newest commit to itself."""
    assert gitea.parse(*delivery("ping", forge="gitea")).word == "ping"
