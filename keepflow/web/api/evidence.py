"""Receipts of releases, to be kept and checked elsewhere."""

from __future__ import annotations

from keepflow.crypto.keys import PublicKey
from keepflow.engine import evidence as countersigning
from keepflow.web.answers import evidence as answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Evidence")


@endpoints.add("GET", "/projects/<project>/releases/<digest>/receipts", "see", api.Evidence)
def receipts(digest: str) -> api.Evidence:
    """Give out what is proven about a pushed digest, to be checked anywhere: keepflow verify FILE."""
    return answers.evidence(reading(), web().master, current_project(), digest)


@endpoints.add(
    "POST",
    "/projects/<project>/releases/<digest>/receipts",
    "promote",
    api.Evidence,
    body=api.Countersigned,
    status=201,
)
def countersign_receipt(digest: str, body: api.Countersigned) -> api.Evidence:
    """Add a signature of a key held elsewhere to a provenance, for hosts whose file asks for it."""
    master, now, project, by = web().master, web().now(), current_project(), caller().user.name
    key = PublicKey.parse(body.key)
    master.writer.call(lambda tx: countersigning.countersign(tx, master, project, digest, body.envelope, key, by, now))
    with master.database.read() as conn:
        return answers.evidence(conn, master, project, digest)
