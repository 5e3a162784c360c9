"""Whether the receipts of an order prove what they must: how its image was built, and that it passed its test."""

from __future__ import annotations

from keepflow.config.agent_file import Service
from keepflow.core.receipts import Build, Result, Subject, verdict
from keepflow.core.text import one_line
from keepflow.crypto import receipts
from keepflow.crypto.keys import PublicKey
from keepflow.crypto.receipts import Trust
from keepflow.errors import BadReceipt
from keepflow.wire.orders import EVIDENCE, DeployOrder


def check(order: DeployOrder, service: Service, master_keys: tuple[PublicKey, ...]) -> None:
    """Return when the receipts prove what the order, or this host's file, asks for; raises BadReceipt.

    One receipt that does not fit spoils the order, whatever the others say.
    """
    wanted = max(EVIDENCE.index(order.evidence), _asked_here(order, service))
    if wanted == EVIDENCE.index("none"):
        return
    image = order.image
    if image.digest is None:
        raise _missing(f"image {image.image_id[:19]} was never pushed, so nothing proves how it was built")
    trust = Trust(master_keys, service.receipts_from)
    subject = Subject(image.repository, image.digest)
    said = [receipts.read(envelope, subject, trust) for envelope in order.receipts]
    if not any(isinstance(each, Build) for each in said):
        raise _missing(f"no receipt says how {image.digest[:19]} was built")
    results = [each for each in said if isinstance(each, Result)]
    if wanted >= EVIDENCE.index("passed") and not any(result.passed for result in results):
        raise _missing(f"no receipt says that {image.digest[:19]} passed a test")
    if wanted >= EVIDENCE.index("tested"):
        _not_rejected(image.digest, verdict(results))


def _asked_here(order: DeployOrder, service: Service) -> int:
    """Return what this host's file asks for; going back to, or keeping, what passed once is never a matter of today."""
    if service.receipts != "required" and not service.receipts_from:
        return EVIDENCE.index("none")
    return EVIDENCE.index("passed" if order.action in ("rollback", "adopt") else "tested")


def _not_rejected(digest: str, counts: Result | None) -> None:
    if counts is None or not counts.passed:
        who = one_line(counts.person, 60) if counts and counts.person else "a run"
        raise BadReceipt(
            f"{who} rejected {digest[:19]} after its test", code="receipt-rejected", field="predicate.result"
        )


def _missing(sentence: str) -> BadReceipt:
    return BadReceipt(sentence, code="receipt-missing", field="receipts")
