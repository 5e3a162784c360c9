"""A pushed image with its receipts, and orders that carry them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keepflow.config.agent_file import load_agent
from keepflow.core import receipts as statements
from keepflow.core.receipts import Build, Result, Subject
from keepflow.crypto import receipts
from keepflow.crypto.keys import PrivateKey
from tests.agent.orders import FILE, MINUTE, NOW, V2, Court

DIGEST = "sha256:" + "d" * 64
REPOSITORY = "registry.example.org:5000/shop"
SUBJECT = Subject(REPOSITORY, DIGEST)
IMAGE = {"origin": "registry", "repository": REPOSITORY, "image_id": V2, "digest": DIGEST}
PAGE = "https://ci.example.org/projects/shop/runs/12"


def built(court: Court, *keys: PrivateKey, subject: Subject = SUBJECT, **changes: Any) -> dict[str, Any]:
    """Return the receipt of a build, signed by the master or by other keys."""
    build = Build(
        repository="https://github.com/example/shop.git",
        ref="refs/heads/master",
        flow="test",
        sha="1" * 40,
        run=PAGE,
        builder=statements.builder_id("https://ci.example.org", court.order_key.public.key_id),
        started_at=NOW - 60 * MINUTE,
        finished_at=NOW - 59 * MINUTE,
    )
    statement = statements.provenance(subject, replace(build, **changes))
    return receipts.seal(statement, *(keys or (court.order_key,)))


def judged(
    court: Court, *keys: PrivateKey, passed: bool = True, person: str = "", at: int = NOW, subject: Subject = SUBJECT
) -> dict[str, Any]:
    """Return the receipt of a test."""
    result = Result(passed, "shop/test", "d-0", PAGE, person, at)
    return receipts.seal(statements.tested(subject, result), *(keys or (court.order_key,)))


def promote(court: Court, *proofs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the fields of an order to promote the image, with these receipts."""
    facts: dict[str, Any] = {"image": IMAGE, "evidence": "tested", "receipts": list(proofs)}
    return court.order(**{**facts, **changes})


def asking(text: str) -> Any:
    """Return an agent file whose service has these lines added."""
    return load_agent(FILE.replace("    hot: 0\n", f"    hot: 0\n    {text}\n"))
